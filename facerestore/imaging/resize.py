"""Resizing of float images."""

import torch
import torch.nn.functional as F

from facerestore.core.errors import ShapeError


def resize(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize images with an antialiased bicubic filter.

    Where an axis shrinks, the filter widens with the ratio, so that every source pixel counts by its area;
    where it grows, this is bicubic interpolation (a = -0.5). Differentiable inside [0,1].

    Args:
        images: (B,C,H,W) float in [0,1].
        height: of the result, pixels, at least 1.
        width: of the result, pixels, at least 1.

    Returns:
        (B,C,height,width), same dtype, clamped to [0,1], the overshoot of the filter cut off.

    Raises:
        ShapeError: if `images` has not four dimensions, or a side is below 1.
    """
    if images.ndim != 4:
        raise ShapeError("images (B,C,H,W)", images.shape)
    if height < 1 or width < 1:
        raise ShapeError("a height and a width of at least 1", (height, width))
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, size=(height, width), mode="bicubic", antialias=True).clamp(0, 1)
