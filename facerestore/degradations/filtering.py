"""Filtering with a kernel of its own for each picture."""

import torch
import torch.nn.functional as F

from facerestore.core.errors import ShapeError

FFT_FROM = 9
"""Side of a kernel, px, from which the Fourier transform is faster, measured at 512 px."""


def filter2d(images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Correlate every picture with its kernel; beyond the edges the picture is mirrored about them.

    The same as `cv2.filter2D` and as BasicSR's `filter2D`, for pictures of any size. Small kernels are
    applied as they are, large ones (`FFT_FROM`) by Fourier transform. Differentiable.

    Args:
        images: (B,C,H,W) float.
        kernels: (B,k,k), k odd, or (1,k,k) for all.

    Returns:
        (B,C,H,W).

    Raises:
        ShapeError: if the kernels are not odd squares, or not one for each picture.
    """
    count, channels, height, width = images.shape
    side = kernels.shape[-1]
    if kernels.ndim != 3 or kernels.shape[1] != side or side % 2 == 0 or len(kernels) not in (1, count):
        raise ShapeError(f"kernels ({count},k,k) or (1,k,k) with an odd k", kernels.shape)
    kernels = kernels.to(images)
    if side < FFT_FROM:
        mirrored = _mirrored(images, side // 2, height + side - 1, width + side - 1)
        weight = kernels.expand(count, -1, -1).repeat_interleave(channels, 0)[:, None]
        filtered = F.conv2d(mirrored.flatten(0, 1)[None], weight, groups=count * channels)
        return filtered.view(count, channels, height, width)
    size = _fast_size(height + side - 1), _fast_size(width + side - 1)
    # Correlation: the spectrum of the kernel is conjugated. What wraps around lands below and to the right of
    # the part that is kept.
    spectrum = torch.fft.rfft2(_mirrored(images, side // 2, *size))
    # Rows of zeros need no transform, nor do rows that are not kept.
    of_kernel = torch.fft.fft(torch.fft.rfft(kernels, n=size[1]), n=size[0], dim=-2)
    spectrum = spectrum * of_kernel.conj()[:, None]
    rows = torch.fft.ifft(spectrum, dim=-2)[..., :height, :]
    return torch.fft.irfft(rows, n=size[1])[..., :width]


def _mirrored(images: torch.Tensor, margin: int, rows: int, columns: int) -> torch.Tensor:
    """The pictures with `margin` mirrored pixels above and on the left, mirrored on to the size asked for."""
    height, width = images.shape[-2:]
    below, right = rows - height - margin, columns - width - margin
    if max(margin, below) < height and max(margin, right) < width:
        return F.pad(images, (margin, right, margin, below), mode="reflect")
    # A mirror in a mirror, where the picture is smaller than the margin: torch pads no further than once.
    y = _bounced(torch.arange(-margin, rows - margin, device=images.device), height)
    x = _bounced(torch.arange(-margin, columns - margin, device=images.device), width)
    return images[..., y[:, None], x]


def _bounced(positions: torch.Tensor, length: int) -> torch.Tensor:
    """Positions on an endless line to those in a picture with a mirror through each of its edge pixels."""
    period = max(2 * (length - 1), 1)
    positions = positions % period
    return torch.minimum(positions, period - positions) if length > 1 else positions * 0


def _fast_size(least: int) -> int:
    """The smallest multiple of 8 with no prime factor above 7: other sizes cost up to three times as much."""
    size = -(-least // 8) * 8
    while True:
        rest = size
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 8
