"""Small pictures for people to look at."""

import torch
from PIL import Image

from facerestore.imaging.range import to_uint8
from facerestore.imaging.resize import resize


def thumbnail(image: torch.Tensor, width: int, height: int) -> Image.Image:
    """Resize one image (1,3,H,W) in [0,1] to an 8-bit RGB picture."""
    small = to_uint8(resize(image, height, width))
    return Image.fromarray(small[0].permute(1, 2, 0).contiguous().numpy())
