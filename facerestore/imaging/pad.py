"""Padding pictures to the sizes that networks need, and cutting them back."""

import torch
import torch.nn.functional as F

from facerestore.core.errors import ShapeError


def pad_to_multiple(images: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad at the bottom and on the right until both sides are multiples.

    The picture is mirrored about its last row and column as far as it goes; what a small picture cannot
    fill so is filled with the last row and column of the mirrored one.

    Args:
        images: (B,C,H,W), any size from 1 px; what fits already is returned as it is.
        multiple: of both sides of the result, px.

    Returns:
        (B,C,H',W'); `cut` with the old size undoes it.

    Raises:
        ShapeError: if `images` is not (B,C,H,W) with pixels, or the multiple is below 1.
    """
    if images.ndim != 4 or 0 in images.shape[2:]:
        raise ShapeError("images (B,C,H,W) with at least one pixel", images.shape)
    if multiple < 1:
        raise ShapeError("a multiple of at least 1", (multiple,))
    height, width = images.shape[2:]
    bottom, right = -height % multiple, -width % multiple
    mirrored_bottom, mirrored_right = min(bottom, height - 1), min(right, width - 1)
    if mirrored_bottom or mirrored_right:
        images = F.pad(images, (0, mirrored_right, 0, mirrored_bottom), mode="reflect")
    rest = (0, right - mirrored_right, 0, bottom - mirrored_bottom)
    return F.pad(images, rest, mode="replicate") if any(rest) else images


def cut(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The upper left part (B,C,height,width) of padded images.

    Raises:
        ShapeError: if the images are smaller than that.
    """
    if images.shape[-2] < height or images.shape[-1] < width:
        raise ShapeError(f"images of at least {height} x {width}", images.shape)
    return images[..., :height, :width]
