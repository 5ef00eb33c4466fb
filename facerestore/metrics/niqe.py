"""NIQE: how unlike those of natural pictures the statistics of a picture are."""

from functools import cache
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.errors import ShapeError
from facerestore.metrics.fidelity import luma

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

WEIGHT = "niqe"
_BLOCK_PX = 96
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
_HALVING = (-0.01171875, -0.03515625, 0.11328125, 0.43359375)
"""MATLAB's bicubic reduction to a half with antialiasing: the cubic (a = -1/2) at 1.75 to 0.25, halved."""


class Niqe(nn.Module):
    """NIQE as BasicSR computes it, of luma rounded to 8 bits, in blocks of 96 px at two scales.

    Args:
        mean: (36,) of natural pictures.
        covariance: (36,36) of the same.
        window: (7,7) the Gaussian by which brightness and contrast are taken out.

    Reference:
        Mittal, Soundararajan, Bovik, 2013, "Making a 'completely blind' image quality analyzer", SPL 20(3).
    Parity:
        basicsr 1.4.2 `calculate_niqe`, 1e-4 on photographs; 5e-3 where areas are flat, as in the blocks of a
        strong JPEG: there the rounding of its float32 reduction is all that it sees. (pyiqa's `niqe` takes
        YIQ's luma and other constants.)
    """

    mean: Tensor
    covariance: Tensor
    window: Tensor

    def __init__(self, mean: Tensor, covariance: Tensor, window: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.double().cpu())
        self.register_buffer("covariance", covariance.double().cpu())
        self.register_buffer("window", window.double().cpu())

    @classmethod
    def load(cls, store: "WeightStore") -> Self:
        """Build it with the shipped statistics of natural pictures.

        Raises:
            WeightsError: if the file is not there or damaged.
        """
        state = store.load(WEIGHT)
        return cls(state["mean"], state["covariance"], state["window"])

    def forward(self, images: Tensor) -> Tensor:
        """Measure.

        Args:
            images: (B,3,H,W) float32 in [0,1]; what is left of it beyond whole blocks is not looked at.

        Returns:
            (B,) float64, computed on the CPU, lower is more natural: about 3 to 6 for sharp faces. NaN
            where a picture has fewer than two blocks that are not constant.

        Raises:
            ShapeError: if there is no whole block.
        """
        if min(images.shape[2:]) < _BLOCK_PX:
            raise ShapeError(f"pictures of {_BLOCK_PX} px or more", images.shape)
        grey = (luma(images.float()) * 255).round().double().cpu()
        rows, columns = (side // _BLOCK_PX for side in grey.shape[2:])
        grey = grey[..., : rows * _BLOCK_PX, : columns * _BLOCK_PX]
        fine = _features(self._normalised(grey), rows, columns)
        coarse = _features(self._normalised(_halved(grey)), rows, columns)
        features = torch.cat([fine, coarse], dim=2)
        return torch.stack([self._distance(each) for each in features])

    def _normalised(self, grey: Tensor) -> Tensor:
        """Each pixel less the mean around it, by the spread around it plus 1.

        Means are rounded to float32 before they are subtracted, as in BasicSR: where a picture is flat, that
        is all the spread there is, and it moves the number of smooth pictures by 0.1.
        """
        kernel = self.window[None, None]
        padded = F.pad(grey, (3, 3, 3, 3), mode="replicate")
        mean = F.conv2d(padded, kernel).float()
        squares = F.conv2d(padded.float().square().double(), kernel).float()
        spread = (squares - mean.square()).abs().sqrt()
        return ((grey.float() - mean) / (spread + 1)).double()

    def _distance(self, features: Tensor) -> Tensor:
        """Of the statistics of a picture's blocks (N,36) to those of natural ones."""
        whole = features[~features.isnan().any(1)]
        if len(whole) < 2:
            return features.new_tensor(torch.nan)
        pooled = (self.covariance + torch.cov(whole.T)) / 2
        difference = self.mean - features.nanmean(0)
        # Of singular values below 1e-15 of the largest nothing is inverted, as NumPy's default has it.
        return (difference @ torch.linalg.pinv(pooled, rtol=1e-15) @ difference).sqrt()


def _halved(grey: Tensor) -> Tensor:
    """Half the size by MATLAB's `imresize`, the picture mirrored beyond its border; in float32."""
    taps = torch.tensor((*_HALVING, *reversed(_HALVING)), dtype=torch.float32)
    small = grey.float() / 255
    for axis in (2, 3):
        length = small.shape[axis]
        index = torch.arange(-3, length + 3)
        index = torch.where(index < 0, -1 - index, index)
        index = torch.where(index >= length, 2 * length - 1 - index, index)
        shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
        small = F.conv2d(
            small.index_select(axis, index), taps.view(shape), stride=(2, 1) if axis == 2 else (1, 2)
        )
    return (small * 255).double()


def _features(normalised: Tensor, rows: int, columns: int) -> Tensor:
    """Of each block 18 numbers: (B,1,H,W) to (B,rows * columns,18)."""
    height, width = normalised.shape[2] // rows, normalised.shape[3] // columns
    blocks = normalised.unflatten(2, (rows, height)).unflatten(4, (columns, width))
    blocks = blocks[:, 0].permute(0, 1, 3, 2, 4).flatten(1, 2)  # (B,N,h,w)
    alpha, left, right = _fitted(blocks)
    parts = [alpha, (left + right) / 2]
    for shift in _SHIFTS:
        alpha, left, right = _fitted(blocks * blocks.roll(shift, (2, 3)))
        mean = (right - left) * (torch.lgamma(2 / alpha) - torch.lgamma(1 / alpha)).exp()
        parts += [alpha, mean, left, right]
    return torch.stack(parts, dim=2)


@cache
def _shapes() -> tuple[Tensor, Tensor]:
    """The shapes that are tried, 0.2 to 10 in steps of 0.001, and the ratio of moments that each has."""
    shapes = torch.arange(9801, dtype=torch.float64) * 0.001 + 0.2
    inverse = 1 / shapes
    ratios = 2 * torch.lgamma(2 * inverse) - torch.lgamma(inverse) - torch.lgamma(3 * inverse)
    return shapes, ratios.exp()


def _fitted(blocks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shape, left and right width of the asymmetric generalised Gaussian nearest to each block (B,N,h,w)."""
    flat = blocks.flatten(2)
    squares = flat.square()
    below, above = flat < 0, flat > 0
    left = ((squares * below).sum(2) / below.sum(2)).sqrt()
    right = ((squares * above).sum(2) / above.sum(2)).sqrt()
    ratio = left / right
    moments = flat.abs().mean(2).square() / squares.mean(2)
    moments = moments * (ratio**3 + 1) * (ratio + 1) / (ratio.square() + 1).square()
    shapes, ratios = _shapes()
    alpha = shapes[_nearest(ratios, moments)]
    width = (0.5 * (torch.lgamma(1 / alpha) - torch.lgamma(3 / alpha))).exp()
    return torch.where(moments.isnan(), torch.nan, alpha), left * width, right * width


def _nearest(ratios: Tensor, moments: Tensor) -> Tensor:
    """Where the ascending `ratios` come nearest to each of `moments`."""
    after = torch.searchsorted(ratios, moments.contiguous().nan_to_num()).clamp(1, len(ratios) - 1)
    nearer_before = (moments - ratios[after - 1]).abs() <= (ratios[after] - moments).abs()
    return torch.where(nearer_before, after - 1, after)
