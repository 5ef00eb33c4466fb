"""A discriminator of heads on DINOv2's maps of patches: the "DINOv2 GAN" of MiPlusCV's detail stage.

Reference:
    Sauer et al., 2023, StyleGAN-T, arXiv:2301.09515, and ADD, arXiv:2311.17042: spectrally normalised heads
    on several depths of a frozen transformer. Its heads run along the sequence of patches and normalise over
    virtual batches; these run over the map and normalise nothing, so that pictures do not see each other.
    What MiPlusCV (NTIRE 2026) used in detail is not published.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError
from facerestore.features.dinov2 import SMALL, DinoV2

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore


class _Head(nn.Module):
    """A layer of each patch alone, one of its neighbourhood beside a skip, and a logit of each patch."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.patch = spectral_norm(nn.Conv2d(inputs, width, 1))
        self.around = spectral_norm(nn.Conv2d(width, width, 3, padding=1))
        self.logit = spectral_norm(nn.Conv2d(width, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        hidden = F.leaky_relu(self.patch(features), 0.2)
        hidden = (hidden + F.leaky_relu(self.around(hidden), 0.2)) / math.sqrt(2)
        return self.logit(hidden)


class DinoV2Discriminator(nn.Module):
    """Judges pictures patch by patch at several depths of a frozen network; gradients pass through it.

    R1 is taken at what the heads read, `r1_penalty(score(features), features)`: attention has no second
    derivative in torch's fused form.

    Args:
        backbone: the frozen network; it is frozen here.
        config: sizes of the heads.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Sizes.

        Raises:
            ConfigError: if the width is below 1.
        """

        width: int = 256
        """Channels inside each head."""

        def __post_init__(self) -> None:
            if self.width < 1:
                raise ConfigError(f"DinoV2Discriminator: the width must be 1 or more, got {self.width}")

    def __init__(self, backbone: DinoV2, config: Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone.requires_grad_(False)
        self.heads = nn.ModuleList(_Head(backbone.width, config.width) for _ in backbone.depths)

    @classmethod
    def load(
        cls,
        store: "WeightStore",
        name: str = SMALL,
        depths: Sequence[int] = (3, 6, 9, 12),
        config: Config | None = None,
    ) -> Self:
        """New heads on a published network, which is the user's to fetch; see `DinoV2.load`.

        Raises:
            ConfigError: if the network has no such depth.
            WeightsError: if the folder is not there, damaged, or of another network.
        """
        return cls(DinoV2.load(store, name, depths), config or cls.Config())

    @classmethod
    def tiny(cls) -> Self:
        """New heads on a small network with made weights; for tests."""
        return cls(DinoV2.tiny(), cls.Config(width=16))

    def features(self, images: Tensor) -> list[Tensor]:
        """What the heads read of pictures (B,3,H,W) in [0,1]: a map of patches of each depth.

        Raises:
            ShapeError: if they are no pictures, or smaller than half a patch.
        """
        return self.backbone(images)

    def score(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Logits (B,1,h,w) of each depth, one a patch."""
        return [head(level) for head, level in zip(self.heads, features, strict=True)]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Pictures (B,3,H,W) float32 in [0,1] to logits (B,1,h,w) of each depth, one a patch.

        Raises:
            ShapeError: if they are no pictures, or smaller than half a patch.
        """
        return self.score(self.features(images))
