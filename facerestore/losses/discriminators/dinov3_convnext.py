"""OMGSR's discriminator: small heads on three maps of DINOv3's frozen ConvNeXt.

Reference:
    Wu et al., 2025, OMGSR, arXiv:2508.08227; public code wuer5/OMGSR@8996613b `dinov3_gan/`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError, ShapeError
from facerestore.features.dinov3_convnext import DinoV3ConvNeXt
from facerestore.nets.convnext import Size

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

Layers = tuple[tuple[float, int], ...]
# Of each level and layer, the width as a share of the one before, and the stride of its convolution.
_LAYERS: dict[int, tuple[Layers, Layers, Layers]] = {
    512: (
        ((0.5, 2), (1.0, 2), (1.0, 2)),
        ((0.5, 1), (0.5, 2), (1.0, 2)),
        ((0.5, 1), (0.5, 1), (0.5, 2)),
    ),
    1024: (
        ((0.5, 1), (1.0, 2), (1.0, 2), (1.0, 2)),
        ((0.5, 1), (0.5, 1), (1.0, 2), (1.0, 2)),
        ((0.5, 1), (0.5, 1), (0.5, 1), (1.0, 2)),
    ),
}


class BlurPool(nn.Module):
    """Halve a map through a 4x4 binomial filter, zeros around it.

    The filter lies in the state dict once for each channel, as the published code has it.
    """

    filt: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("filt", (torch.outer(taps, taps) / 64).repeat(channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) to (B,C,H / 2,W / 2), rounded down."""
        return F.conv2d(x, self.filt, stride=2, padding=1, groups=x.shape[1])


class DinoV3Heads(nn.Module):
    """One head a level, of layers that blur, convolve (spectrally normalised) and bend."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Sizes.

        Raises:
            ConfigError: if the side is none that heads were published for, or there are not three widths.
        """

        widths: tuple[int, ...] = (192, 384, 768)
        """Channels of each map; of DINOv3's large network."""
        image_px: Literal[512, 1024] = 512
        """Side of the pictures at which each head ends in one logit."""

        def __post_init__(self) -> None:
            if self.image_px not in _LAYERS:
                raise ConfigError(
                    f"heads are known for {', '.join(map(str, _LAYERS))} px, got {self.image_px}"
                )
            if len(self.widths) != len(_LAYERS[self.image_px]) or min(self.widths) < 8:
                raise ConfigError(f"heads need three widths of 8 or more, got {self.widths}")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        levels = zip(config.widths, _LAYERS[config.image_px], strict=True)
        self.decoders = nn.ModuleList(_head(width, layers) for width, layers in levels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps (B,widths[i],h,w) to logits (B,1,h',w')."""
        return [head(level) for head, level in zip(self.decoders, features, strict=True)]


def _head(width: int, layers: Layers) -> nn.Sequential:
    head: list[nn.Module] = []
    for ratio, stride in layers:
        narrower = int(width * ratio)
        conv = spectral_norm(nn.Conv2d(width, narrower, 3, stride, 1))
        head += [BlurPool(width), conv, nn.LeakyReLU(0.2, inplace=True)]
        width = narrower
    return nn.Sequential(*head, BlurPool(width), spectral_norm(nn.Conv2d(width, 1, 1)))


class DinoV3Discriminator(nn.Module):
    """Judges pictures by three maps of a frozen network; gradients pass through it to the generator.

    The heads' spectral normalisation does one power iteration in every pass in train mode, as published, and
    begins at random vectors: logits of new heads mean nothing in eval mode. They are judged by
    `losses.adversarial` of kind `soft_label`, after `losses.diffaugment`. The published training also adds
    the gradients of the generator's step to the discriminator; freeze it there instead.

    Args:
        backbone: the frozen network.
        heads: for its widths.

    Raises:
        ConfigError: if the heads have other widths than the network.

    Parity:
        `Dinov3ConvNeXtDiscriminator` of the public code on the same made weights, 1e-5 abs in float32:
        logits, three passes in train mode, and losses. Keys below `decoders` are the official ones.
    """

    def __init__(self, backbone: DinoV3ConvNeXt, heads: DinoV3Heads) -> None:
        super().__init__()
        if heads.config.widths != backbone.widths:
            raise ConfigError(f"heads of widths {heads.config.widths} on maps of {backbone.widths}")
        self.backbone = backbone
        self.decoders = heads

    @classmethod
    def load(cls, store: "WeightStore", *, size: Size = "large", image_px: Literal[512, 1024] = 512) -> Self:
        """New heads on a published network, which is the user's to fetch.

        Raises:
            ConfigError: if there is no such size.
            WeightsError: if the file is not there, damaged, or of another size.
        """
        return cls._on(DinoV3ConvNeXt.load(store, size), image_px)

    @classmethod
    def tiny(cls) -> Self:
        """New heads on a small network with made weights; for tests."""
        return cls._on(DinoV3ConvNeXt.tiny(), 512)

    @classmethod
    def _on(cls, backbone: DinoV3ConvNeXt, image_px: Literal[512, 1024]) -> Self:
        return cls(backbone, DinoV3Heads(DinoV3Heads.Config(widths=backbone.widths, image_px=image_px)))

    def features(self, images: Tensor) -> list[Tensor]:
        """What the heads read of pictures (B,3,H,W) in [0,1]: three maps; see `DinoV3ConvNeXt`.

        Raises:
            ShapeError: if they are smaller than `image_px`, or no pictures.
        """
        side = self.decoders.config.image_px
        if images.ndim != 4 or min(images.shape[2:]) < side:
            raise ShapeError(f"images (B,3,H,W) of {side} px or more", images.shape)
        return self.backbone(images)

    def score(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Logits (B,1,h,w) of each level, one a picture at `image_px`."""
        return self.decoders(features)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Pictures (B,3,H,W) float32 in [0,1] to logits (B,1,h,w) of each level.

        Raises:
            ShapeError: if they are smaller than `image_px`, or no pictures.
        """
        return self.score(self.features(images))
