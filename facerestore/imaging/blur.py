"""Gaussian blur, of another width for each picture of a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from facerestore.core.errors import ShapeError


def gaussian_blur(images: Tensor, sigma_px: Tensor, size_px: Tensor) -> Tensor:
    """Blur each picture with its own kernel; what lies outside is mirrored at the border pixel.

    Args:
        images: (B,C,H,W), any range.
        sigma_px: (B,) width of the Gaussian, > 0.
        size_px: (B,) side of the kernel, odd; the Gaussian is cut there and sums to 1.

    Returns:
        (B,C,H,W), on the device and in the dtype of the pictures.

    Raises:
        ShapeError: if it is no batch of pictures, or one is not larger than half a kernel.
    """
    if images.ndim != 4:
        raise ShapeError("pictures (B,C,H,W)", images.shape)
    batch, channels, height, width = images.shape
    reach = int(size_px.max()) // 2
    if min(height, width) <= reach:
        raise ShapeError(f"pictures of more than {reach} px, half of the kernel", images.shape)
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    sigma, size = (each.to(images)[:, None] for each in (sigma_px, size_px))
    taps = torch.exp(-0.5 * (offsets / sigma) ** 2) * (offsets.abs() <= size / 2)
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]
    planes = F.pad(images, [reach] * 4, mode="reflect").flatten(0, 1)[None]
    with torch.autocast(images.device.type, enabled=False):  # as exact as the pictures are
        across = F.conv2d(planes, taps[:, :, None, :], groups=batch * channels)
        return F.conv2d(across, taps[:, :, :, None], groups=batch * channels).view_as(images)
