"""The edges of pictures, and distances that compare them beside the pictures themselves."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.errors import ShapeError


def edges(images: Tensor) -> Tensor:
    """Strength of the edges of the mean of the channels, by Sobel.

    Args:
        images: (B,3,H,W) float32 in [0,1].

    Returns:
        (B,1,H,W) from 0.001; not clipped, so that values exceed 1. The border is compared with zeros.

    Raises:
        ShapeError: if they are no pictures.

    Reference:
        `E` of EA-DISTS; see `EdgeAware`.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ShapeError("pictures (B,3,H,W)", images.shape)
    across = images.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    down = images.new_tensor([[-1.0, -2.0, -1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.0]])
    grey = images.mean(1, keepdim=True)
    with torch.autocast(images.device.type, enabled=False):  # as exact as the pictures are
        slopes = [F.conv2d(grey, kernel[None, None], padding=1) for kernel in (across, down)]
    return (slopes[0].square() + slopes[1].square() + 1e-6).sqrt()


class EdgeAware(nn.Module):
    """The distance of two pictures plus that of their edges, which count as grey pictures.

    Args:
        distance: of pictures, to (B,): with `Dists` this is EA-DISTS, with `Lpips` its like.

    Reference:
        EA-DISTS of Li et al., 2024 (D3SR) and Wang et al., 2024, arXiv:2411.17163 (OSDFace).
    Parity:
        pyiqa's `dists` on the same weights, of the pictures and of their one-channel edges, 2e-6 abs in
        float32, live: there a map of one channel is broadcast by the normalisation, here it is repeated.
    """

    def __init__(self, distance: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.distance = distance

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare.

        Args:
            pred: (B,3,H,W) float32 in [0,1].
            target: the same shape.

        Returns:
            (B,) float32.

        Raises:
            ShapeError: if they are no pictures, or their shapes differ.
        """
        drawn = [edges(images).expand_as(images) for images in (pred, target)]
        return self.distance(pred, target) + self.distance(drawn[0], drawn[1])
