"""The first three stages of ConvNeXt as DINOv3 trained it: what a distance and a discriminator look at.

Reference:
    Liu et al., 2022, "A ConvNet for the 2020s", arXiv:2201.03545; weights: Simeoni et al., 2025, "DINOv3",
    arXiv:2508.10104.
Parity:
    GitHub facebookresearch/dinov3 `models/convnext.py` (the copy in wuer5/OMGSR@8996613b), on the same made
    weights, 1e-5 abs in float32, and PyPI transformers `DINOv3ConvNextModel`. Keys are the official ones. The
    fourth stage and the last normalisation, which nobody here reads, are left out.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError

_EPS = 1e-6
_GAMMA = 1e-6
STAGES = 3
"""How many of the four stages are built."""
Size = Literal["tiny", "small", "base", "large"]
_SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "tiny": ((3, 3, 9), (96, 192, 384)),
    "small": ((3, 3, 27), (96, 192, 384)),
    "base": ((3, 3, 27), (128, 256, 512)),
    "large": ((3, 3, 27), (192, 384, 768)),
}


class _Norm(nn.LayerNorm):
    """Over the channels of (B,C,H,W)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """A 7x7 convolution of each channel, then a narrow-wide-narrow pair of layers, added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), _GAMMA))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        hidden = self.gamma * self.pwconv2(F.gelu(self.pwconv1(hidden)))
        return x + hidden.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """Three maps of an image, at a quarter, an eighth and a sixteenth of its size."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Sizes of the first three stages; the defaults are those of the large one.

        Raises:
            ConfigError: if there are not three stages, or a number is below 1.
        """

        depths: tuple[int, ...] = _SIZES["large"][0]
        """Blocks of each stage."""
        widths: tuple[int, ...] = _SIZES["large"][1]
        """Channels of each stage."""

        def __post_init__(self) -> None:
            numbers = (*self.depths, *self.widths)
            if len(self.depths) != STAGES or len(self.widths) != STAGES or min(numbers) < 1:
                raise ConfigError(f"ConvNeXt: three depths and three widths of 1 or more, got {self}")

        @classmethod
        def of(cls, size: Size) -> Self:
            """A published size.

            Raises:
                ConfigError: if there is none of that name.
            """
            if size not in _SIZES:
                raise ConfigError(f"{size!r} is no size of ConvNeXt; take one of {', '.join(_SIZES)}")
            depths, widths = _SIZES[size]
            return cls(depths=depths, widths=widths)

        @classmethod
        def tiny(cls) -> Self:
            """The smallest that has every part; for tests."""
            return cls(depths=(1, 2, 1), widths=(8, 16, 32))

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.downsample_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3, width, 4, stride=4), _Norm(width, eps=_EPS))
            if stage == 0
            else nn.Sequential(_Norm(widths[stage - 1], eps=_EPS), nn.Conv2d(widths[stage - 1], width, 2, 2))
            for stage, width in enumerate(widths)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(_Block(width) for _ in range(depth)))
            for depth, width in zip(config.depths, widths, strict=True)
        )

    def forward(self, images: Tensor, between: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
        """Describe.

        Args:
            images: (B,3,H,W), normalised as the weights want it, at least 16 px.
            between: done to each map before it is returned and before the next stage reads it.

        Returns:
            (B,widths[i],H / 4 / 2^i,W / 4 / 2^i) for each stage i.
        """
        maps: list[Tensor] = []
        hidden = images
        for shrink, stage in zip(self.downsample_layers, self.stages, strict=True):
            hidden = stage(shrink(hidden))
            hidden = hidden if between is None else between(hidden)
            maps.append(hidden)
        return maps


_OFFICIAL_REST = re.compile(r"(downsample_layers|stages)\.3\.|norm\.|norms\.3\.")
_TRANSFORMERS = re.compile(r"(?:model\.)?stages\.(\d+)\.(downsample_layers|layers)\.(\d+)\.(.+)")
_TRANSFORMERS_REST = re.compile(r"(?:model\.)?stages\.3\.|layer_norm\.")
_TRANSFORMERS_NAMES = {
    "depthwise_conv": "dwconv",
    "layer_norm": "norm",
    "pointwise_conv1": "pwconv1",
    "pointwise_conv2": "pwconv2",
}


def published_state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The part of a published checkpoint that `ConvNeXt` has, under the official keys.

    Only what is known to be of the fourth stage and the last normalisation is left out; whatever else a
    file holds is kept, and refused when it is loaded.

    Args:
        tensors: the official file, or that of the hub, which has the names of transformers.
    """
    if not any(key.endswith("depthwise_conv.weight") for key in tensors):
        return {key: value for key, value in tensors.items() if not _OFFICIAL_REST.match(key)}
    return {_official(key): value for key, value in tensors.items() if not _TRANSFORMERS_REST.match(key)}


def _official(key: str) -> str:
    found = _TRANSFORMERS.fullmatch(key)
    if not found:
        return key
    stage, kind, index, rest = found.groups()
    if kind == "downsample_layers":
        return f"downsample_layers.{stage}.{index}.{rest}"
    name, dot, leaf = rest.partition(".")
    return f"stages.{stage}.{index}.{_TRANSFORMERS_NAMES.get(name, name)}{dot}{leaf}"
