"""Between the value ranges of pictures: [0,1], [-1,1] and 0 to 255. Nobody writes `* 2 - 1` elsewhere."""

import torch


def to_uint8(images: torch.Tensor) -> torch.Tensor:
    """Round float images in [0,1] to uint8 in 0 to 255; what lies outside is clamped."""
    return images.detach().float().clamp(0, 1).mul(255).round().to(torch.uint8)


def from_uint8(images: torch.Tensor) -> torch.Tensor:
    """Map uint8 images to float32 in [0,1]; `to_uint8` gives back exactly what came."""
    return images.float().div(255)


def to_signed(images: torch.Tensor) -> torch.Tensor:
    """Map [0,1] to [-1,1]; differentiable."""
    return images * 2 - 1


def from_signed(images: torch.Tensor) -> torch.Tensor:
    """Map [-1,1] to [0,1]; differentiable."""
    return (images + 1) / 2
