"""Losses that see detail alone: wavelet bands, what a blur takes away, differences between neighbours."""

import torch
from torch import Tensor

from facerestore.imaging.blur import gaussian_blur
from facerestore.imaging.pairs import pair
from facerestore.imaging.wavelet import haar
from facerestore.losses.pixel import CHARBONNIER_EPS, charbonnier, l1


def wavelet_high_frequency(pred: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the three high bands of a Haar transform.

    Args:
        pred: (B,C,H,W), any range, sides even.
        target: the same shape.

    Returns:
        (B,) float32; 0 where both have the same bands, whatever their means over blocks of 2 x 2 px.

    Raises:
        ShapeError: if the shapes differ, or a side is odd.

    Reference:
        KLETech-CEVI (SA-FGRC), NTIRE 2026, arXiv:2604.10532: names a loss of reconstruction on these bands;
        the absolute difference is our reading.
    """
    pred, target = pair(pred, target)
    return l1(haar(pred)[1], haar(target)[1])


def high_frequency_charbonnier(
    pred: Tensor, target: Tensor, sigma_px: float = 2.0, eps: float = CHARBONNIER_EPS
) -> Tensor:
    """Charbonnier loss of what a Gaussian blur takes away from each picture.

    Args:
        pred: (B,C,H,W), any range.
        target: the same shape.
        sigma_px: width of the Gaussian, > 0, cut at three times that.
        eps: see `charbonnier`.

    Returns:
        (B,) float32.

    Raises:
        ShapeError: if the shapes differ, or the pictures are not larger than three times the width.

    Reference:
        BVI, NTIRE 2026: a Charbonnier loss on high-frequency residuals, described without its numbers; those
        here are ours.
    """
    pred, target = pair(pred, target)
    difference = pred - target
    sigma = torch.full(difference.shape[:1], sigma_px, device=difference.device)
    size = 2 * torch.ceil(3 * sigma) + 1
    return charbonnier(difference, gaussian_blur(difference, sigma, size), eps)


def gradient_charbonnier(pred: Tensor, target: Tensor, eps: float = CHARBONNIER_EPS) -> Tensor:
    """Charbonnier loss of the differences between neighbours, across and down, the mean of both.

    Args:
        pred: (B,C,H,W), any range, sides of 2 px or more.
        target: the same shape.
        eps: see `charbonnier`.

    Returns:
        (B,) float32; 0 where both differ by a constant.

    Raises:
        ShapeError: if the shapes differ.

    Reference:
        BVI, NTIRE 2026: a Charbonnier loss on image gradients, described without its numbers; see
        `high_frequency_charbonnier`.
    """
    pred, target = pair(pred, target)
    down, across = (charbonnier(pred.diff(dim=axis), target.diff(dim=axis), eps) for axis in (2, 3))
    return (down + across) / 2
