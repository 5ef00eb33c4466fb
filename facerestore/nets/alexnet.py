"""The convolutions of AlexNet, whose activations LPIPS compares.

Reference:
    Krizhevsky, 2014, arXiv:1404.5997 (the variant for one device); keys and layers as `features` of
    torchvision's `alexnet` (BSD-3-Clause).
Parity:
    torchvision on the same weights, equal in float32, live.
"""

from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError

_WIDENING = (2, 6, 12, 8, 8)


class AlexNet(nn.Sequential):
    """Five convolutions, each with what is left of it above 0, and two poolings between them."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Settings; the default is the published network.

        Raises:
            ConfigError: if the width is below 1.
        """

        width: int = 32
        """Half of the channels of the first convolution."""

        def __post_init__(self) -> None:
            if self.width < 1:
                raise ConfigError(f"AlexNet: width must be 1 or more, got {self.width}")

        @classmethod
        def tiny(cls) -> Self:
            """The same depth with four channels; for tests."""
            return cls(width=2)

        @property
        def widths(self) -> tuple[int, ...]:
            """Channels of each convolution."""
            return tuple(self.width * factor for factor in _WIDENING)

    def __init__(self, config: Config) -> None:
        a, b, c, d, e = config.widths
        super().__init__(
            *(nn.Conv2d(3, a, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(a, b, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(c, d, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(d, e, 3, padding=1), nn.ReLU()),
        )
        self.config = config

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """The five activations.

        Args:
            pixels: (B,3,H,W), sides of 31 px or more, normalised as the user of the network does it.

        Returns:
            A map (B,C,h,w) for each convolution.
        """
        found: list[Tensor] = []
        for layer in self:
            pixels = layer(pixels)
            if isinstance(layer, nn.ReLU):
                found.append(pixels)
        return found
