"""DISTS: how far two pictures lie apart in structure and in texture, as people see it."""

from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.errors import ShapeError
from facerestore.features.vgg import VggFeatures, load_vgg, tiny_vgg
from facerestore.imaging.pairs import picture_pair
from facerestore.nets.vgg import Vgg
from facerestore.weights.load import require_alike

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

WEIGHT = "dists"
TAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
_STABILISER = 1e-6


class Dists(nn.Module):
    """A distance of pictures, 0 for equal ones and below about 1; it forgives other texture of one kind.

    Args:
        net: VGG-16; its maxima are replaced by L2 pooling.
        alpha: weights (1,C,1,1) >= 0 of the means, C the channels of the picture and of all maps: 1475.
        beta: weights of the same shape of the correlations.

    Raises:
        ShapeError: if the weights are not as many as the channels.

    Reference:
        Ding, Ma, Wang, Simoncelli, 2020, arXiv:2004.07728, Eq. 6 to 8, without the resizing of its evaluation
        script.
    Parity:
        pyiqa 0.1.16 `archs/dists_arch.py` on the same weights, 1e-6 abs in float32, live. Deviations: its
        1 - (2ab + c) / (a^2 + b^2 + c) is computed as (a - b)^2 / (a^2 + b^2 + c), so that equal pictures are
        exactly 0 apart and no sum of large numbers cancels.
    """

    alpha: Tensor
    beta: Tensor

    def __init__(self, net: Vgg, alpha: Tensor, beta: Tensor) -> None:
        super().__init__()
        channels = 3 + sum(net.config.widths)
        for weights in (alpha, beta):
            if weights.shape != (1, channels, 1, 1):
                raise ShapeError(f"weights (1,{channels},1,1)", weights.shape)
        self.features = VggFeatures(net, TAPS, l2_pool)
        self.register_buffer("alpha", alpha)
        self.register_buffer("beta", beta)

    @classmethod
    def load(cls, store: "WeightStore") -> Self:
        """Build it with the published weights, frozen and in eval mode.

        The weights of channels ship; those of VGG-16 are the user's to fetch.

        Raises:
            WeightsError: if a file is not there, damaged, or does not fit.
        """
        weights = store.load(WEIGHT)
        require_alike(weights, dict.fromkeys(("alpha", "beta"), torch.empty(1, 1475, 1, 1)), WEIGHT)
        return cls(load_vgg(store, 16), **weights).eval()

    @classmethod
    def tiny(cls) -> Self:
        """Four channels and made weights; for tests."""
        net = tiny_vgg()
        generator = torch.Generator().manual_seed(0)
        shape = (1, 3 + sum(net.config.widths), 1, 1)
        return cls(net, *(torch.rand(shape, generator=generator) for _ in range(2))).eval()

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare.

        Args:
            pred: (B,3,H,W) float32, those of pictures in [0,1], of 16 px or more; values beyond are not
                refused, since maps of edges have them.
            target: the same shape.

        Returns:
            (B,) float32, >= 0.

        Raises:
            ShapeError: if they are no pictures, too small, or their shapes differ.
        """
        pred, target = picture_pair(pred, target)
        total = self.alpha.sum() + self.beta.sum()
        maps_pred, maps_target = [pred, *self.features(pred)], [target, *self.features(target)]
        sizes = [each.shape[1] for each in maps_pred]
        weights = ((each / total)[0, :, 0, 0].split(sizes) for each in (self.alpha, self.beta))
        levels = zip(maps_pred, maps_target, *weights, strict=True)
        return torch.stack([_difference(x, y, alpha, beta) for x, y, alpha, beta in levels]).sum(0)


def _difference(x: Tensor, y: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """What maps (B,C,h,w) of one level contribute, (B,)."""
    x, y = (each.to(torch.promote_types(each.dtype, torch.float32)).flatten(2) for each in (x, y))
    x_mean, y_mean = x.mean(2), y.mean(2)
    x, y = x - x_mean[..., None], y - y_mean[..., None]
    means = (x_mean - y_mean).square() / (x_mean.square() + y_mean.square() + _STABILISER)
    spread = x.square().mean(2) + y.square().mean(2)
    correlations = (x - y).square().mean(2) / (spread + _STABILISER)
    return (means * alpha + correlations * beta).sum(1)


def l2_pool(maps: Tensor) -> Tensor:
    """Halve maps (B,C,H,W): the root of the blurred square, with the kernel [1 2 1]/4 both ways."""
    taps = maps.new_tensor([0.25, 0.5, 0.25])
    kernel = (taps[:, None] * taps).expand(maps.shape[1], 1, 3, 3)
    return (F.conv2d(maps.square(), kernel, stride=2, padding=1, groups=maps.shape[1]) + 1e-12).sqrt()
