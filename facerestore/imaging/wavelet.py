"""The Haar wavelet: a picture as one band of means and three of details, and back without loss."""

import torch
from torch import Tensor

from facerestore.core.errors import ShapeError


def haar(image: Tensor) -> tuple[Tensor, Tensor]:
    """Split a picture into bands, orthonormally: the squares of all bands add up to those of the picture.

    Of each block of 2 x 2 pixels `a b` above `c d`, the low band has (a+b+c+d)/2, and the high ones, in this
    order, LH (-a-b+c+d)/2, which sees changes from above to below, HL (-a+b-c+d)/2, from left to right, and
    HH (a-b-c+d)/2. Libraries differ in which of the first two they call LH.

    Args:
        image: (B,C,H,W), any range, H and W even.

    Returns:
        The low band (B,C,H/2,W/2) and the high ones (B,3,C,H/2,W/2).

    Raises:
        ShapeError: if it has another number of axes, or an odd side.
    """
    if image.ndim != 4 or image.shape[2] % 2 or image.shape[3] % 2:
        raise ShapeError("a picture (B,C,H,W) with even sides", image.shape)
    above, below = image[:, :, ::2], image[:, :, 1::2]
    a, b, c, d = above[..., ::2], above[..., 1::2], below[..., ::2], below[..., 1::2]
    high = torch.stack([c + d - a - b, b + d - a - c, a + d - b - c], dim=1)
    return (a + b + c + d) / 2, high / 2


def inverse_haar(low: Tensor, high: Tensor) -> Tensor:
    """Put a picture together from what `haar` returns.

    Args:
        low: (B,C,h,w).
        high: (B,3,C,h,w).

    Returns:
        (B,C,2h,2w).

    Raises:
        ShapeError: if the two do not belong together.
    """
    batch, channels, height, width = low.shape
    if high.shape != (batch, 3, channels, height, width):
        raise ShapeError(f"high bands {(batch, 3, channels, height, width)}", high.shape)
    lh, hl, hh = high.unbind(1)
    above = torch.stack([low - lh - hl + hh, low - lh + hl - hh], dim=-1).flatten(-2)
    below = torch.stack([low + lh - hl - hh, low + lh + hl + hh], dim=-1).flatten(-2)
    return torch.stack([above, below], dim=-2).flatten(2, 3) / 2
