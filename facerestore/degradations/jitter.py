"""Changes of colour that GFPGAN makes to degraded pictures."""

from collections.abc import Callable, Mapping

import torch

from facerestore.imaging.color_fix import luma


def brightness(images: torch.Tensor, factor: float) -> torch.Tensor:
    """Multiply (B,3,H,W) in [0,1]; clamped."""
    return (images * factor).clamp(0, 1)


def contrast(images: torch.Tensor, factor: float) -> torch.Tensor:
    """Stretch (B,3,H,W) in [0,1] about the mean luma of each picture; clamped."""
    mean = luma(images).mean((1, 2, 3), keepdim=True)
    return (mean + factor * (images - mean)).clamp(0, 1)


def saturation(images: torch.Tensor, factor: float) -> torch.Tensor:
    """Stretch (B,3,H,W) in [0,1] about the luma of each pixel, 0 leaves none of the colour; clamped."""
    grey = luma(images)
    return (grey + factor * (images - grey)).clamp(0, 1)


def hue(images: torch.Tensor, turn: float) -> torch.Tensor:
    """Turn the hue of (B,3,H,W) in [0,1] by a share of the circle; value and saturation (HSV) stay."""
    value, largest = images.max(1, keepdim=True)
    chroma = value - images.amin(1, keepdim=True)
    red, green, blue = images.unbind(1)
    differences = torch.stack([green - blue, blue - red, red - green], 1).gather(1, largest)
    sector = differences / torch.where(chroma == 0, 1.0, chroma) + 2 * largest
    sixths = (sector + 6 * turn) % 6
    # Distance from red, green and blue on the circle of six: full colour up to 1, none from 2 on.
    offsets = images.new_tensor((0, 2, 4)).view(1, 3, 1, 1)
    distance = 3 - ((sixths - offsets).abs() - 3).abs()
    return value - chroma * (distance - 1).clamp(0, 1)


JITTERS: Mapping[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "hue": hue,
}
