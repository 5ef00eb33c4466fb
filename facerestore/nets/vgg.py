"""The convolutions of VGG-16 and VGG-19, whose activations perceptual distances compare.

Reference:
    Simonyan and Zisserman, 2015, arXiv:1409.1556; keys and layers as `features` of torchvision's `vgg16` and
    `vgg19` (BSD-3-Clause).
Parity:
    torchvision on the same weights, equal in float32, live.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from torch import Tensor, nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError

_CONVOLUTIONS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDENING = (1, 2, 4, 8, 8)


class Vgg(nn.Sequential):
    """Five blocks of convolutions with a pooling after each.

    Layers have the names of the literature: `conv3_2` is the second convolution of the third block, `relu3_2`
    what is left of it above 0, `pool3` the end of the block.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Settings; the default is VGG-16.

        Raises:
            ConfigError: if the width is below 1.
        """

        depth: Literal[16, 19] = 16
        """Which of the two."""
        width: int = 64
        """Channels of the first block; the last two have eight times as many."""

        def __post_init__(self) -> None:
            if self.width < 1:
                raise ConfigError(f"Vgg: width must be 1 or more, got {self.width}")

        @classmethod
        def tiny(cls, depth: Literal[16, 19] = 16) -> Self:
            """The same depth with four channels; for tests."""
            return cls(depth=depth, width=4)

        @property
        def widths(self) -> tuple[int, ...]:
            """Channels of each block."""
            return tuple(self.width * factor for factor in _WIDENING)

    def __init__(self, config: Config) -> None:
        layers: dict[str, nn.Module] = {}
        inputs = 3
        counts = _CONVOLUTIONS[config.depth]
        for block, (count, width) in enumerate(zip(counts, config.widths, strict=True), 1):
            for index in range(1, count + 1):
                layers[f"conv{block}_{index}"] = nn.Conv2d(inputs, width, 3, padding=1)
                layers[f"relu{block}_{index}"] = nn.ReLU()
                inputs = width
            layers[f"pool{block}"] = nn.MaxPool2d(2)
        super().__init__(*layers.values())
        self.config = config
        self.names = tuple(layers)

    def forward(
        self, pixels: Tensor, taps: Sequence[str], pool: Callable[[Tensor], Tensor] | None = None
    ) -> list[Tensor]:
        """The outputs of some layers; what lies behind the last of them is not computed.

        Args:
            pixels: (B,3,H,W), normalised as the user of the network does it.
            taps: names of layers.
            pool: halves maps in place of the maximum over 2 x 2.

        Returns:
            A map (B,C,h,w) for each tap, in the order of the taps.

        Raises:
            ConfigError: if there is no layer of such a name.
        """
        unknown = [tap for tap in taps if tap not in self.names]
        if unknown:
            raise ConfigError(f"VGG-{self.config.depth} has no layer {unknown[0]!r}")
        found: dict[str, Tensor] = {}
        for name, layer in zip(self.names, self, strict=True):
            pixels = pool(pixels) if pool is not None and name.startswith("pool") else layer(pixels)
            if name in taps:
                found[name] = pixels
            if len(found) == len(set(taps)):
                break
        return [found[tap] for tap in taps]
