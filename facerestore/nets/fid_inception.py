"""The Inception-v3 of FID: TensorFlow's network of 2015, which is not quite that of torchvision.

Reference:
    Szegedy et al., 2015, arXiv:1512.00567; Heusel et al., 2017, arXiv:1706.08500 (FID); keys and deviations
    from the paper as github mseitzer/pytorch-fid has them: the mean over 3 x 3 leaves out what lies outside,
    and the last block takes the maximum in its place.
Parity:
    pyiqa 0.1.16 `archs/inception.py`, a copy of pytorch-fid's, on the same weights: 1e-5 in float32, live.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError


class Conv(NamedTuple):
    """A convolution: its name in its block, its width in units, its kernel, and its stride."""

    name: str
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


_ONE, _THREE, _FIVE = (1, 1), (3, 3), (5, 5)
# A branch is a row of steps; a step of several convolutions puts what they make side by side. What halves
# reads no border, the others keep the size.
Branches = Sequence[Sequence[Sequence[Conv]]]


def _rows(*branches: Sequence[Conv]) -> Branches:
    return [[(conv,) for conv in branch] for branch in branches]


def _a() -> Branches:
    return _rows(
        [Conv("branch1x1", 4)],
        [Conv("branch5x5_1", 3), Conv("branch5x5_2", 4, _FIVE)],
        [Conv("branch3x3dbl_1", 4), Conv("branch3x3dbl_2", 6, _THREE), Conv("branch3x3dbl_3", 6, _THREE)],
    )


def _b() -> Branches:
    last = Conv("branch3x3dbl_3", 6, _THREE, 2)
    return _rows(
        [Conv("branch3x3", 24, _THREE, 2)],
        [Conv("branch3x3dbl_1", 4), Conv("branch3x3dbl_2", 6, _THREE), last],
    )


def _c(inner: int) -> Branches:
    row, column = (1, 7), (7, 1)
    double = [(inner, column), (inner, row), (inner, column), (12, row)]
    return _rows(
        [Conv("branch1x1", 12)],
        [
            Conv("branch7x7_1", inner),
            Conv("branch7x7_2", inner, row),
            Conv("branch7x7_3", 12, column),
        ],
        [
            Conv("branch7x7dbl_1", inner),
            *(Conv(f"branch7x7dbl_{i}", width, kernel) for i, (width, kernel) in enumerate(double, 2)),
        ],
    )


def _d() -> Branches:
    return _rows(
        [Conv("branch3x3_1", 12), Conv("branch3x3_2", 20, _THREE, 2)],
        [
            Conv("branch7x7x3_1", 12),
            Conv("branch7x7x3_2", 12, (1, 7)),
            Conv("branch7x7x3_3", 12, (7, 1)),
            Conv("branch7x7x3_4", 12, _THREE, 2),
        ],
    )


def _e() -> Branches:
    def fork(name: str) -> list[Conv]:
        return [Conv(f"{name}a", 24, (1, 3)), Conv(f"{name}b", 24, (3, 1))]

    return [
        [[Conv("branch1x1", 20)]],
        [[Conv("branch3x3_1", 24)], fork("branch3x3_2")],
        [[Conv("branch3x3dbl_1", 28)], [Conv("branch3x3dbl_2", 24, _THREE)], fork("branch3x3dbl_3")],
    ]


def _mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)


# Before the blocks: convolutions, and whether each reads a border.
_STEM = (
    (Conv("Conv2d_1a_3x3", 2, _THREE, 2), False),
    (Conv("Conv2d_2a_3x3", 2, _THREE), False),
    (Conv("Conv2d_2b_3x3", 4, _THREE), True),
    (Conv("Conv2d_3b_1x1", 5), False),
    (Conv("Conv2d_4a_3x3", 12, _THREE), False),
)
_HALVED_AFTER = ("Conv2d_2b_3x3", "Conv2d_4a_3x3")
# Of each block: its branches, how it pools, and the width of the convolution after the pooling.
_BLOCKS: Mapping[str, tuple[Branches, Callable[[Tensor], Tensor], int]] = {
    "Mixed_5b": (_a(), _mean, 2),
    "Mixed_5c": (_a(), _mean, 4),
    "Mixed_5d": (_a(), _mean, 4),
    "Mixed_6a": (_b(), _halved, 0),
    "Mixed_6b": (_c(8), _mean, 12),
    "Mixed_6c": (_c(10), _mean, 12),
    "Mixed_6d": (_c(10), _mean, 12),
    "Mixed_6e": (_c(12), _mean, 12),
    "Mixed_7a": (_d(), _halved, 0),
    "Mixed_7b": (_e(), _mean, 12),
    "Mixed_7c": (_e(), _maximum, 12),
}


class FixedNorm(nn.Module):
    """A batch normalisation that always takes the statistics it was trained with, in train mode too."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) to the same shape."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=1e-3)


class ConvNorm(nn.Module):
    """A convolution, a normalisation, and what is left above 0."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], stride: int, border: bool) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2) if border else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = FixedNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B,inputs,H,W) to (B,outputs,h,w)."""
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, and a pooling beside them."""

    def __init__(
        self, inputs: int, unit: int, branches: Branches, pool: Callable[[Tensor], Tensor], pooled: int
    ) -> None:
        super().__init__()
        self.branches = [[[conv.name for conv in step] for step in branch] for branch in branches]
        self.pool = pool
        self.width = 0
        for branch in branches:
            width = inputs
            for step in branch:
                for conv in step:
                    border = conv.stride == 1
                    layer = ConvNorm(width, conv.width * unit, conv.kernel, conv.stride, border)
                    self.add_module(conv.name, layer)
                width = sum(conv.width for conv in step) * unit
            self.width += width
        self.branch_pool = ConvNorm(inputs, pooled * unit, _ONE, 1, True) if pooled else nn.Identity()
        self.width += pooled * unit or inputs

    def forward(self, x: Tensor) -> Tensor:
        """(B,inputs,H,W) to (B,width,h,w)."""
        outputs: list[Tensor] = []
        for branch in self.branches:
            y = x
            for step in branch:
                sides = [self.get_submodule(name)(y) for name in step]
                y = torch.cat(sides, 1) if len(sides) > 1 else sides[0]
            outputs.append(y)
        return torch.cat([*outputs, self.branch_pool(self.pool(x))], 1)


class FidInception(nn.Module):
    """Inception-v3 up to the mean over the last map; the classifier is left out."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Settings; the default is the published network.

        Raises:
            ConfigError: if the unit is below 1.
        """

        unit: int = 16
        """Of all widths; 128 of them describe a picture."""

        def __post_init__(self) -> None:
            if self.unit < 1:
                raise ConfigError(f"FidInception: unit must be 1 or more, got {self.unit}")

        @classmethod
        def tiny(cls) -> Self:
            """The same depth with two channels at first; for tests."""
            return cls(unit=1)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = 3
        for conv, border in _STEM:
            layer = ConvNorm(width, conv.width * config.unit, conv.kernel, conv.stride, border)
            self.add_module(conv.name, layer)
            width = conv.width * config.unit
        for name, (branches, pool, pooled) in _BLOCKS.items():
            block = Mixed(width, config.unit, branches, pool, pooled)
            self.add_module(name, block)
            width = block.width
        self.width = width

    def forward(self, pixels: Tensor) -> Tensor:
        """Describe.

        Args:
            pixels: (B,3,H,W) float32 in [-1,1], sides of 75 px or more; FID takes 299.

        Returns:
            (B,width), 2048 in the published network.
        """
        for name, layer in self.named_children():
            pixels = layer(pixels)
            if name in _HALVED_AFTER:
                pixels = _halved(pixels)
        return pixels.mean((2, 3))
