"""Dv3D: how differently two pictures look to DINOv3's ConvNeXt, compared as DISTS compares.

Means of feature maps stand for texture, their covariances for structure. No weight is learned.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.errors import ShapeError
from facerestore.features.dinov3_convnext import DinoV3ConvNeXt
from facerestore.nets.convnext import Size

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

_STABILISER = 1e-6
_TINY = 1e-12


class Dv3D(nn.Module):
    """Distance of two pictures, 0 for equal ones, at most 2.

    With f_0 the picture and f_1 to f_3 the maps of the network, each pooled by a 3x3 L2 pool before the next
    stage reads it, and per channel c the mean m, variance v and covariance k of all pixels,

    distance = 1 - sum_c w [(2 m_x m_y + e) / (m_x^2 + m_y^2 + e) + (2 k + e) / (v_x + v_y + e)],

    where w is one half over the number of channels and e = 1e-6.

    Args:
        backbone: the frozen network.

    Reference:
        Wu et al., 2025, OMGSR, arXiv:2508.08227, which replaces LPIPS by it; DISTS: Ding et al., 2020,
        arXiv:2004.07728.
    Parity:
        wuer5/OMGSR@8996613b `dinov3_gan/dinov3_convnext_dists.py` on the same made weights, 1e-6 abs in
        float32; it takes pictures in [-1,1] and returns the mean of the batch.
    """

    pool: Tensor

    def __init__(self, backbone: DinoV3ConvNeXt) -> None:
        super().__init__()
        self.backbone = backbone
        taps = torch.tensor([0.5, 1.0, 0.5])
        self.register_buffer("pool", torch.outer(taps, taps)[None, None] / 4, persistent=False)

    @classmethod
    def load(cls, store: "WeightStore", size: Size = "large") -> Self:
        """Build it with published weights, which are the user's to fetch.

        Raises:
            ConfigError: if there is no such size.
            WeightsError: if the file is not there, damaged, or of another size.
        """
        return cls(DinoV3ConvNeXt.load(store, size))

    @classmethod
    def tiny(cls) -> Self:
        """A small one with made weights; for tests."""
        return cls(DinoV3ConvNeXt.tiny())

    def features(self, images: Tensor) -> list[Tensor]:
        """The picture itself and three pooled maps of it, for `distance`.

        Args:
            images: (B,3,H,W) float32 in [0,1], 16 px or more.

        Raises:
            ShapeError: if the images have another shape.
        """
        return [images, *self.backbone(images, self._pooled)]

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare.

        Args:
            pred: (B,3,H,W) float32 in [0,1], 16 px or more.
            target: of the same shape.

        Returns:
            (B,) float32.

        Raises:
            ShapeError: if the shapes differ or are no images.
        """
        if pred.shape != target.shape:
            raise ShapeError(f"two batches of one shape, the first {tuple(pred.shape)}", target.shape)
        return distance(self.features(pred), self.features(target))

    def _pooled(self, features: Tensor) -> Tensor:
        channels = features.shape[1]
        kernel = self.pool.expand(channels, 1, 3, 3)
        return (F.conv2d(features.square(), kernel, padding=1, groups=channels) + _TINY).sqrt()


def distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """The distance (B,) of two pictures from what `Dv3D.features` says of them."""
    alike = torch.stack([_alike(x, y) for x, y in zip(first, second, strict=True)]).sum(0)
    return 1 - alike / (2 * sum(x.shape[1] for x in first))


def _alike(x: Tensor, y: Tensor) -> Tensor:
    """Two for each channel in which two maps (B,C,H,W) are equal: (B,), in float32 or wider."""
    x, y = (each.to(torch.promote_types(each.dtype, torch.float32)) for each in (x, y))
    mean_x, mean_y = x.mean((2, 3)), y.mean((2, 3))
    # From deviations: E[xy] - E[x]E[y] of the original loses digits where the mean is large.
    away_x, away_y = x - mean_x[..., None, None], y - mean_y[..., None, None]
    spread = away_x.square().mean((2, 3)) + away_y.square().mean((2, 3))
    shared = (away_x * away_y).mean((2, 3))
    texture = (2 * mean_x * mean_y + _STABILISER) / (mean_x.square() + mean_y.square() + _STABILISER)
    structure = (2 * shared + _STABILISER) / (spread + _STABILISER)
    return (texture + structure).sum(1)
