"""Losses between activations of VGG.

The other perceptual losses are distances that metrics use too: `Lpips`, `Dists` and `EdgeAware` of
`facerestore.features`. They are losses as they are, `(pred, target)` to (B,).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from facerestore.features.vgg import VggFeatures
from facerestore.imaging.pairs import picture_pair
from facerestore.losses.pixel import l1

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

LAYERS = MappingProxyType({"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0})
"""The layers of Real-ESRGAN, before what lies below 0 is cut off, and what they count."""


class VggLoss(nn.Module):
    """Mean absolute difference of activations of VGG-19, layer by layer, weighted and added.

    Args:
        features: the network, whose taps have the weights.
        weights: of each tap.

    Reference:
        Johnson, Alahi, Fei-Fei, 2016, arXiv:1603.08155; layers and weights as Wang et al., 2021,
        arXiv:2107.10833 (Real-ESRGAN), trained it, and GFPGAN after it.
    Parity:
        The network equals torchvision's, live; the formula is that of BasicSR 1.4.2 `PerceptualLoss` with
        `criterion: l1` and `use_input_norm`, without style, as it is written there.
    """

    def __init__(self, features: VggFeatures, weights: Mapping[str, float] = LAYERS) -> None:
        super().__init__()
        self.features = features
        self.weights = tuple(weights[tap] for tap in features.taps)

    @classmethod
    def load(cls, store: "WeightStore") -> Self:
        """Build it with the weights of ImageNet, frozen and in eval mode.

        Raises:
            WeightsError: if the file is not there, damaged, or does not fit.
        """
        return cls(VggFeatures.load(store, tuple(LAYERS))).eval()

    @classmethod
    def tiny(cls) -> Self:
        """Four channels and made weights; for tests."""
        return cls(VggFeatures.tiny(tuple(LAYERS))).eval()

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare.

        Args:
            pred: (B,3,H,W) float32 in [0,1], of 16 px or more.
            target: the same shape.

        Returns:
            (B,) float32.

        Raises:
            ShapeError: if they are no pictures, too small, or their shapes differ.
        """
        pred, target = picture_pair(pred, target)
        levels = zip(self.weights, self.features(pred), self.features(target), strict=True)
        return torch.stack([weight * l1(x, y) for weight, x, y in levels]).sum(0)
