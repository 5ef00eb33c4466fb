"""GFPGAN's discriminator of eyes and mouths, and the crops that it judges.

Reference:
    Wang et al., 2021, "Towards Real-World Blind Face Restoration with Generative Facial Prior" (GFPGAN),
    arXiv:2101.04061; public code TencentARC/GFPGAN@7552a77.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError, ShapeError
from facerestore.imaging.range import to_signed

FACE_PX = 512
CROP_PX = {"left_eye": 80, "right_eye": 80, "mouth": 120}
"""Sides of the crops of a face of 512 px; of other faces they are in proportion."""
SMALLEST_PX = 8


class _EqualConv(nn.Module):
    """A convolution whose weights are divided by the root of their fan-in when it runs (StyleGAN2)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, padding: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.scale = 1 / math.sqrt(inputs * 9)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.scale, self.bias, self.stride, self.padding)


class _BiasedLeakyReLU(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias[:, None, None], 0.2) * math.sqrt(2)


class _Blur(nn.Module):
    """A 4x4 binomial filter that makes a map one larger, for a strided convolution without padding."""

    taps: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("taps", (torch.outer(taps, taps) / 64)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.taps.expand(x.shape[1], 1, 4, 4), padding=2, groups=x.shape[1])


def _layer(inputs: int, outputs: int, *, halve: bool = False) -> nn.Sequential:
    conv = _EqualConv(inputs, outputs, stride=2 if halve else 1, padding=0 if halve else 1, bias=False)
    blur = [_Blur()] if halve else []
    return nn.Sequential(*blur, conv, _BiasedLeakyReLU(outputs))


class ComponentDiscriminator(nn.Module):
    """Judges crops of one component; there is one network for each of left eye, right eye and mouth.

    Parity:
        `FacialComponentDiscriminator` of the public code on the same made weights, 1e-5 abs in float32. Keys
        are the official ones, so that `GFPGANv1_net_d_left_eye.pth` and its fellows load.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Sizes; the default is the published one.

        Raises:
            ConfigError: if the width is below 1.
        """

        width: int = 64
        """Channels of the first layer, half of those of the next two, a quarter of the others'."""

        def __post_init__(self) -> None:
            if self.width < 1:
                raise ConfigError(f"ComponentDiscriminator: the width must be 1 or more, got {self.width}")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv1 = _layer(3, width)
        self.conv2 = _layer(width, 2 * width, halve=True)
        self.conv3 = _layer(2 * width, 2 * width)
        self.conv4 = _layer(2 * width, 4 * width, halve=True)
        self.conv5 = _layer(4 * width, 4 * width)
        self.final_conv = nn.Sequential(_EqualConv(4 * width, 1, stride=1, padding=1, bias=True))

    @classmethod
    def tiny(cls) -> Self:
        """A small one with random weights; for tests."""
        return cls(cls.Config(width=4))

    def features(self, crops: Tensor) -> list[Tensor]:
        """Two maps of crops (B,3,H,W) in [0,1], which the style loss compares and `score` judges.

        Returns:
            (B,2 width,H / 2,W / 2) and (B,4 width,H / 4,W / 4); sides are rounded down.

        Raises:
            ShapeError: if they are no pictures of 8 px or more.
        """
        if crops.ndim != 4 or crops.shape[1] != 3 or min(crops.shape[2:]) < SMALLEST_PX:
            raise ShapeError(f"crops (B,3,H,W) of {SMALLEST_PX} px or more", crops.shape)
        first = self.conv3(self.conv2(self.conv1(to_signed(crops))))
        return [first, self.conv5(self.conv4(first))]

    def score(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Logits (B,1,h,w) of the second map, as a list of one."""
        return [self.final_conv(features[-1])]

    def forward(self, crops: Tensor) -> list[Tensor]:
        """Crops (B,3,H,W) float32 in [0,1] to one map of logits (B,1,H / 4,W / 4).

        Raises:
            ShapeError: if they are no pictures of 8 px or more.
        """
        return self.score(self.features(crops))


def component_crops(images: Tensor, boxes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut eyes and mouth out of aligned faces; gradients pass through.

    Args:
        images: (B,3,S,S) in [0,1], aligned faces.
        boxes: of `left_eye`, `right_eye` and `mouth`, or some of them, each (B,4) in pixels: left, top,
            right, bottom.

    Returns:
        (B,3,s,s) of each, with s of `CROP_PX` for faces of 512 px and in proportion for others.

    Raises:
        ConfigError: if a box is of no known component.
        ShapeError: if the boxes are not (B,4).

    Reference:
        RoIAlign: He et al., 2017, arXiv:1703.06870, of torchvision, called as GFPGAN calls it (which also
        multiplies the crops of larger faces by a factor; that is not repeated).
    """
    from torchvision.ops import roi_align

    crops: dict[str, Tensor] = {}
    for name, box in boxes.items():
        if name not in CROP_PX:
            raise ConfigError(f"{name!r} is no component of a face; known are {', '.join(CROP_PX)}")
        if box.shape != (len(images), 4):
            raise ShapeError(f"boxes of {name} ({len(images)},4)", box.shape)
        side = round(CROP_PX[name] * images.shape[-1] / FACE_PX)
        index = torch.arange(len(images), dtype=images.dtype, device=images.device)[:, None]
        crops[name] = roi_align(images, torch.cat([index, box.to(images)], dim=1), side)
    return crops
