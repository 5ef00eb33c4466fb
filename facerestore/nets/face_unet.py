"""A plain residual U-Net for faces: small enough to be trained on a CPU."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError

SLOPE = 0.2
UNSHUFFLE = 4
_FULL = 8  # channels at the picture's own size
# What the first convolution sees has no mean, and a spread of about 1: after 800 faces of 64 px a training
# had gained 0.49 dB with it, and 0.43 dB with pictures in [0,1].
_MIDDLE, _SPREAD = 0.5, 0.25


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)


def _start_at_zero(conv: nn.Conv2d) -> None:
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # pyright: ignore[reportArgumentType] - it has one


class ResidualBlock(nn.Module):
    """Two convolutions, added to what goes in; no normalisation, so that every picture is computed alone.

    A new one adds nothing (Zhang et al., 2019, Fixup, arXiv:1901.09321): a deep row of them starts stable.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = _conv(width, width)
        self.conv2 = _conv(width, width)
        _start_at_zero(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        """(B,width,H,W) to the same shape."""
        return x + self.conv2(F.leaky_relu(self.conv1(x), SLOPE, inplace=True))


class ResidualUNet(nn.Module):
    """Blocks of 4 x 4 px become channels, and a U-Net on them says what to add to the picture.

    Down by convolutions of stride 2, up by pixel shuffle; each level on the way up reads the one on the way
    down beside it. The last convolution works at the picture's own size and sees the picture again, so that
    the edges of the blocks do not show. A new one adds nothing, and returns its input. 8,511,788 parameters.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Settings.

        Raises:
            ConfigError: if there is no level, or a number is below 1.
        """

        widths: tuple[int, ...] = (64, 128, 256)
        """Channels of each level; every one has half the side of the one before."""
        blocks: int = 2
        """Residual blocks a level, on the way down and again on the way up."""

        def __post_init__(self) -> None:
            if not self.widths or min(*self.widths, self.blocks) < 1:
                raise ConfigError(f"ResidualUNet: widths and blocks are 1 or more, got {self}")

        @property
        def multiple_px(self) -> int:
            """Of which both sides of a picture are multiples: 16 with three levels."""
            return UNSHUFFLE * 2 ** (len(self.widths) - 1)

        @classmethod
        def tiny(cls) -> Self:
            """The smallest that has every part; for tests."""
            return cls(widths=(8, 8, 8), blocks=1)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths, pixels = config.widths, 3 * UNSHUFFLE**2
        self.first = _conv(pixels, widths[0])
        self.going_down = nn.ModuleList(_blocks(width, config.blocks) for width in widths)
        self.shrink = nn.ModuleList(_conv(wide, deep, stride=2) for wide, deep in pairwise(widths))
        self.going_up = nn.ModuleList(_blocks(width, config.blocks) for width in widths)
        self.grow = nn.ModuleList(_conv(deep, 4 * wide) for wide, deep in pairwise(widths))
        self.join = nn.ModuleList(_conv(2 * wide, wide) for wide in widths[:-1])
        self.spread = _conv(widths[0], _FULL * UNSHUFFLE**2)
        self.last = _conv(_FULL + 3, 3)
        _start_at_zero(self.last)

    def forward(self, image: Tensor) -> Tensor:
        """Restore.

        Args:
            image: (B,3,H,W) sRGB in [0,1], sides in multiples of `config.multiple_px`.

        Returns:
            The same shape, not clamped.
        """
        pixels = (image - _MIDDLE) / _SPREAD
        x = self.first(F.pixel_unshuffle(pixels, UNSHUFFLE))
        beside: list[Tensor] = []
        for level, blocks in enumerate(self.going_down):
            x = blocks(self.shrink[level - 1](x) if level else x)
            beside.append(x)
        for level in reversed(range(len(beside))):
            if level < len(beside) - 1:
                wider = F.pixel_shuffle(self.grow[level](x), 2)
                x = self.join[level](torch.cat([wider, beside[level]], dim=1))
            x = self.going_up[level](x)
        fine = F.leaky_relu(F.pixel_shuffle(self.spread(x), UNSHUFFLE), SLOPE, inplace=True)
        return image + self.last(torch.cat([fine, pixels], dim=1))


def _blocks(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))
