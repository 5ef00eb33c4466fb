"""What two tensors need so that they can be compared."""

import torch
from torch import Tensor

from facerestore.core.errors import ShapeError


def pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Check that two batches can be compared, and widen what has fewer bits than float32.

    Args:
        a: (B,...), floats.
        b: the same shape.

    Raises:
        ShapeError: if the shapes differ, or nothing stands behind the batch.
    """
    if a.ndim < 2 or a.shape != b.shape:
        raise ShapeError(f"two batches of one shape (B,...), the first {tuple(a.shape)}", b.shape)
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    return a.to(dtype), b.to(dtype)


def picture_pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """As `pair`, for pictures (B,3,H,W).

    Raises:
        ShapeError: if they are no pictures, or their shapes differ.
    """
    if a.ndim != 4 or a.shape[1] != 3:
        raise ShapeError("pictures (B,3,H,W)", a.shape)
    return pair(a, b)
