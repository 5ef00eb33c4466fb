"""Random changes of samples, drawn from the sample's own seed."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from facerestore.core.config import Config
from facerestore.core.errors import ConfigError, DataError
from facerestore.core.seeding import generator
from facerestore.data.pictures import Sample, images_of
from facerestore.imaging.resize import resize

MIRRORED = "_mirrored"
"""Ending of the name of latents of the mirrored picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment(Config):
    """How samples are changed; all pictures of a sample alike, and its boxes with them.

    Attributes:
        flip: probability of mirroring; left and right eye change places.
        zoom: largest enlargement, at least 1: a square of side `1/z` is taken at a random place and resized,
            its z drawn uniformly in its logarithm from [1, zoom].
        crop_px: side of the result, taken at a random place of a larger picture (at z = 1, pixel for pixel);
            None keeps the size of square pictures.
    """

    flip: float = 0.5
    zoom: float = 1.0
    crop_px: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1:
            raise ConfigError(f"flip is {self.flip}, a probability between 0 and 1 expected")
        if not self.zoom >= 1:
            raise ConfigError(f"zoom is {self.zoom}, at least 1 expected")
        if self.crop_px is not None and self.crop_px < 1:
            raise ConfigError(f"crop_px is {self.crop_px}, at least 1 expected")


def augmented(sample: Sample, augment: Augment, seed: int) -> Sample:
    """A sample as its seed changes it; the one that is given stays as it is.

    Latents of a mirrored picture are no mirrored latents. So beside `z_x` there may be `z_x_mirrored`, which
    takes its place in a mirrored sample; what comes back has `z_x` alone.

    Boxes may reach out of the picture afterwards.

    Raises:
        DataError: if the picture is smaller than the crop, is not square and to be zoomed only, or the sample
            has latents that belong to the unchanged picture.
    """
    if augment == Augment(flip=0):
        return sample
    cut = augment.zoom > 1 or augment.crop_px is not None
    latents = [name for name in sample if name.startswith("z_") and not name.endswith(MIRRORED)]
    alone = [name for name in latents if cut or f"{name}{MIRRORED}" not in sample]
    if alone:
        raise DataError(
            f"{sample['key']}: {', '.join(alone)} belongs to the unchanged picture; use Augment(flip=0)"
        )
    changed = dict(sample)
    if cut:
        _crop(changed, augment, seed)
    if float(torch.rand((), generator=generator(seed, "flip"))) < augment.flip:
        _mirror(changed)
    return {name: value for name, value in changed.items() if not name.endswith(MIRRORED)}


def _crop(sample: dict[str, Any], augment: Augment, seed: int) -> None:
    height, width = sample["hq"].shape[1:]
    side = augment.crop_px or height
    if augment.crop_px is None and height != width:
        raise DataError(f"{sample['key']}: {width} x {height} px is not square; give the data set a size_px")
    if min(height, width) < side:
        raise DataError(f"{sample['key']}: {width} x {height} px is smaller than the crop of {side} px")
    amount, x, y = torch.rand(3, generator=generator(seed, "crop"), dtype=torch.float64).tolist()
    window = max(1, round(side / math.exp(amount * math.log(augment.zoom))))
    left, top = int(x * (width - window + 1)), int(y * (height - window + 1))
    for name in images_of(sample):
        part = sample[name][None, :, top : top + window, left : left + window]
        sample[name] = resize(part, side, side)[0].contiguous()
    if "boxes" in sample:
        origin = torch.tensor([left, top, left, top])
        sample["boxes"] = {name: (box - origin) * (side / window) for name, box in sample["boxes"].items()}


def _mirror(sample: dict[str, Any]) -> None:
    for name in images_of(sample):
        sample[name] = sample[name].flip(2)
    for name in [name for name in sample if name.endswith(MIRRORED)]:
        sample[name.removesuffix(MIRRORED)] = sample[name]
    if "boxes" in sample:
        width = sample["hq"].shape[2]
        sample["boxes"] = {
            _OTHER.get(name, name): mirrored(box, width) for name, box in sample["boxes"].items()
        }


_OTHER = {"left_eye": "right_eye", "right_eye": "left_eye"}


def mirrored(box: torch.Tensor, width: int) -> torch.Tensor:
    """A box (4,) in the mirrored picture of that width."""
    x0, y0, x1, y1 = box.unbind()
    return torch.stack([width - x1, y0, width - x0, y1])
