"""Unsharp masking: how Real-ESRGAN sharpens what it degrades, and what some of its losses compare with."""

import torch

from facerestore.degradations.filtering import filter2d
from facerestore.degradations.kernels import Kernel, blur_kernels

_SIZE = 51
# What OpenCV takes where only the size of a Gaussian is given: 0.3 * ((size - 1) / 2 - 1) + 0.8.
_SIGMA = 8.0


def sharpen(images: torch.Tensor, *, weight: float = 0.5, threshold: float = 10) -> torch.Tensor:
    """Sharpen pictures where they differ from their blurred copy, as BasicSR's `USMSharp` does.

    Args:
        images: (B,3,H,W) in [0,1].
        weight: of the difference that is added.
        threshold: smallest difference that counts as an edge, in 8-bit code values.

    Returns:
        (B,3,H,W) in [0,1].
    """
    kernel = blur_kernels([Kernel(shape="iso", size=_SIZE, sigma_x=_SIGMA, sigma_y=_SIGMA)])
    residual = images - filter2d(images, kernel)
    edges = (residual.abs() * 255 > threshold).to(images.dtype)
    share = filter2d(edges, kernel).clamp(0, 1)  # a Fourier transform goes past both by 1e-7
    sharp = (images + weight * residual).clamp(0, 1)
    return share * sharp + (1 - share) * images
