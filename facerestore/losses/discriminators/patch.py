"""A discriminator without any pretrained network: it judges overlapping patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError, ShapeError
from facerestore.imaging.range import to_signed

_WIDEST = 8


class PatchDiscriminator(nn.Module):
    """Strided 4x4 convolutions; each logit sees a patch, of 70 px with three layers.

    Spectral normalisation takes the place of the batch normalisation of the original, so that pictures of a
    batch do not see each other.

    Reference:
        Isola et al., 2017, "Image-to-Image Translation with Conditional Adversarial Networks",
        arXiv:1611.07004; as in the stages of VQGAN and DAEFR. Spectral normalisation: Miyato et al., 2018,
        arXiv:1802.05957.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Sizes.

        Raises:
            ConfigError: if a number is below 1.
        """

        width: int = 64
        """Channels after the first convolution; they double with each layer, up to eight times as many."""
        layers: int = 3
        """Convolutions that halve."""

        def __post_init__(self) -> None:
            if min(self.width, self.layers) < 1:
                raise ConfigError(f"PatchDiscriminator: every number must be 1 or more, got {self}")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * min(2**layer, _WIDEST) for layer in range(config.layers + 1)]
        trunk: list[nn.Module] = []
        for layer, (before, width) in enumerate(zip([3, *widths], widths, strict=False)):
            stride = 1 if layer == config.layers else 2
            trunk += [spectral_norm(nn.Conv2d(before, width, 4, stride, 1)), nn.LeakyReLU(0.2, inplace=True)]
        self.trunk = nn.Sequential(*trunk)
        self.head = spectral_norm(nn.Conv2d(widths[-1], 1, 4, 1, 1))

    @classmethod
    def tiny(cls) -> Self:
        """A small one with random weights; for tests."""
        return cls(cls.Config(width=8, layers=2))

    def features(self, images: Tensor) -> list[Tensor]:
        """The one map that the last convolution reads; all of it is trained.

        Raises:
            ShapeError: if they are no pictures, or too small for one logit.
        """
        least = 3 * 2**self.config.layers
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < least:
            raise ShapeError(f"images (B,3,H,W) of {least} px or more", images.shape)
        return [self.trunk(to_signed(images))]

    def score(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Logits (B,1,h,w) of that map, as a list of one."""
        return [self.head(features[0])]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Pictures (B,3,H,W) float32 in [0,1] to one map of logits (B,1,H / 2^layers - 2,W / 2^layers - 2).

        Raises:
            ShapeError: if they are no pictures, or too small for one logit.
        """
        return self.score(self.features(images))
