"""Reads the entries of an index as samples."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch

from facerestore.core.errors import ConfigError, DataError
from facerestore.data.index import Entry, Index
from facerestore.imaging.photo import Photo
from facerestore.imaging.resize import resize

Sample = Mapping[str, Any]
"""`key` (str) and `hq` (3,H,W) float32 in [0,1]; perhaps `lq`, `original` and `coarse` of the same size,
latents `z_...`, and `boxes`: `left_eye`, `right_eye`, `mouth` to (4,) float32, x0, y0, x1, y1 in pixels, in
which a pixel i reaches from i to i + 1, so that `hq[:, y0:y1, x0:x1]` is the part."""


class Dataset(Protocol):
    """What batches are made of: samples by number, each the same whenever it is asked for."""

    def __len__(self) -> int:
        """Samples."""
        ...

    def __getitem__(self, index: int) -> Sample:
        """One sample."""
        ...


class Listed(Dataset, Protocol):
    """A data set that also says what its samples are without reading them."""

    @property
    def entries(self) -> Sequence[Entry]:
        """One a sample, in the same order."""
        ...


class Pictures:
    """The pictures of an index as square tensors.

    The middle square of each picture is taken and resized with the antialiased bicubic filter. EXIF
    orientation, colour profiles and depth are handled as `read_image` does; alpha is ignored.

    Args:
        index: what to read.
        size_px: side of the samples; None leaves size and shape as they are, and gives other fields the size
            of `hq`.

    Raises:
        ConfigError: if `size_px` is below 1.
    """

    def __init__(self, index: Index, size_px: int | None = 512) -> None:
        if size_px is not None and size_px < 1:
            raise ConfigError(f"size_px is {size_px}, at least 1 expected")
        self.entries: Sequence[Entry] = index.entries
        self.size_px = size_px

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        """Read a sample.

        Raises:
            ImageError: if one of its pictures cannot be read any more; the message names the file.
        """
        entry = self.entries[index]
        sample: dict[str, Any] = {"key": entry.key}
        size = None if self.size_px is None else (self.size_px, self.size_px)
        # `hq` first: without a size of their own the other fields get its.
        for field in sorted(entry.files, key=lambda name: name != "hq"):
            photo = entry.files[field].picture()
            image = photo.srgb() if self.size_px is None else _middle(photo)
            size = size or (image.shape[2], image.shape[3])
            sample[field] = resize(image, *size)[0]
        return sample


def stacked(samples: Sequence[Sample]) -> dict[str, Any]:
    """Make a batch of samples: tensors are stacked, boxes part by part, and everything else becomes a tuple.

    Raises:
        DataError: if the samples have not the same fields and shapes; the message names the one that differs.
    """
    first = samples[0]
    for sample in samples:
        if sample.keys() != first.keys():
            fields = ", ".join(sorted(sample.keys() ^ first.keys()))
            raise DataError(f"{sample['key']} and {first['key']} differ in what they have: {fields}")
    return {name: _together(name, [sample[name] for sample in samples], samples) for name in first}


def _together(name: str, values: list[Any], samples: Sequence[Sample]) -> Any:
    if isinstance(values[0], Mapping):
        return {part: _together(f"{name}.{part}", [v[part] for v in values], samples) for part in values[0]}
    if not isinstance(values[0], torch.Tensor):
        return tuple(values)
    for value, sample in zip(values, samples, strict=True):
        if value.shape != values[0].shape:
            raise DataError(
                f"{sample['key']}: {name} has shape {tuple(value.shape)}, that of {samples[0]['key']} "
                f"{tuple(values[0].shape)}; give the data set a size_px, or crop"
            )
    return torch.stack(values)


def images_of(sample: Sample) -> Iterator[str]:
    """The names of the fields that are pictures, (3,H,W)."""
    for name, value in sample.items():
        if isinstance(value, torch.Tensor) and value.ndim == 3 and not name.startswith("z_"):
            yield name


def _middle(photo: Photo) -> torch.Tensor:
    """The largest square in the middle of a picture, (1,3,S,S)."""
    side = min(photo.height, photo.width)
    x0, y0 = (photo.width - side) // 2, (photo.height - side) // 2
    return photo.srgb((x0, y0, x0 + side, y0 + side))
