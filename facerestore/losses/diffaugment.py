"""DiffAugment: what a discriminator sees is recoloured, moved and cut, lest it learn faces by heart."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from facerestore.core.config import Config
from facerestore.core.errors import ConfigError, ShapeError

_GREY = 0.5
"""What is moved in and cut out becomes: the zero of [-1,1], in which the original computes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffAugment(Config):
    """How far each step may go; 0 leaves it out. The defaults are the published ones, and OMGSR's.

    Raises:
        ConfigError: if a number is negative, or translation or cutout above 1.
    """

    brightness: float = 0.25
    """Added to all pixels, up to this far up or down, in units of [0,1] (0.5 in the original's [-1,1])."""
    saturation: float = 1.0
    """Distances of pixels from their grey are multiplied by up to this much more or less than 1."""
    contrast: float = 0.5
    """The same of distances from the mean of the picture."""
    translation: float = 0.125
    """Largest shift along each axis, as a share of the side."""
    cutout: float = 0.5
    """Sides of the rectangle that is cut, as a share of those of the picture."""

    def __post_init__(self) -> None:
        if min(self.brightness, self.saturation, self.contrast, self.translation, self.cutout) < 0:
            raise ConfigError(f"DiffAugment: every number is 0 or more, got {self}")
        if max(self.translation, self.cutout) > 1:
            raise ConfigError(f"DiffAugment: translation and cutout are shares of a side, got {self}")


def augment(
    images: Tensor, generators: Sequence[torch.Generator], config: DiffAugment | None = None
) -> Tensor:
    """Recolour, move and cut pictures, each by its own random numbers; gradients pass through.

    Args:
        images: (B,3,H,W) float32 in [0,1].
        generators: one for each picture, on the CPU; seven numbers are drawn of each, so that what happens
            to a picture does not depend on its batch or its device.
        config: how far; None takes the published settings.

    Returns:
        (B,3,H,W); recoloured pixels may leave [0,1], as in the original, and are not clamped.

    Raises:
        ShapeError: if there are no images, or not one generator for each.

    Reference:
        Zhao et al., 2020, arXiv:2006.10738; policy color,translation,cutout.
    Parity:
        mit-han-lab/data-efficient-gans@0b63395 `DiffAugment_pytorch.py` on one picture at a time, with the
        global generator seeded alike, 1e-6 abs. It computes in [-1,1]; so do we, up to the affine map.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ShapeError("images (B,3,H,W)", images.shape)
    if len(generators) != len(images):
        raise ShapeError(f"one generator for each of {len(images)} images", (len(generators),))
    config = config or DiffAugment()
    height, width = images.shape[2:]
    color, place = _draw(generators, height, width, config)
    color, place = color.to(images), place.to(images.device)
    images = _recolored(images, color, config)
    images = _moved(images, place[:, 0], place[:, 1])
    return _cut(images, place[:, 2], place[:, 3], _share(height, config.cutout), _share(width, config.cutout))


def _draw(
    generators: Sequence[torch.Generator], height: int, width: int, config: DiffAugment
) -> tuple[Tensor, Tensor]:
    """Three numbers in [0,1) and four whole ones for each picture, drawn in the order of the original."""
    bounds: list[tuple[int, int]] = []
    for side in (height, width):
        shift = _share(side, config.translation)
        bounds.append((-shift, shift + 1))
    for side in (height, width):
        bounds.append((0, side + 1 - _share(side, config.cutout) % 2))
    color = torch.stack([torch.cat([torch.rand(1, generator=g) for _ in range(3)]) for g in generators])
    place = torch.stack(
        [torch.cat([torch.randint(*bound, (1,), generator=g) for bound in bounds]) for g in generators]
    )
    return color, place


def _share(side: int, ratio: float) -> int:
    return int(side * ratio + 0.5)


def _recolored(images: Tensor, color: Tensor, config: DiffAugment) -> Tensor:
    brightness, saturation, contrast = (color[:, :, None, None, None] * 2 - 1).unbind(1)
    images = images + config.brightness * brightness
    grey = images.mean(1, keepdim=True)
    images = (images - grey) * (1 + config.saturation * saturation) + grey
    mean = images.mean((1, 2, 3), keepdim=True)
    return (images - mean) * (1 + config.contrast * contrast) + mean


def _moved(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Pixel (r, c) is what was at (r + down, c + right)."""
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) + down[:, None]
    columns = torch.arange(width, device=images.device) + right[:, None]
    there = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    index = torch.arange(len(images), device=images.device)[:, None, None]
    rows, columns = rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
    moved = images.permute(0, 2, 3, 1)[index, rows, columns].permute(0, 3, 1, 2)
    return torch.where(there[:, None], moved, _GREY)


def _cut(images: Tensor, down: Tensor, right: Tensor, tall: int, wide: int) -> Tensor:
    rows = torch.arange(images.shape[2], device=images.device) - (down - tall // 2)[:, None]
    columns = torch.arange(images.shape[3], device=images.device) - (right - wide // 2)[:, None]
    inside = ((rows >= 0) & (rows < tall))[:, :, None] & ((columns >= 0) & (columns < wide))[:, None, :]
    return torch.where(inside[:, None], _GREY, images)
