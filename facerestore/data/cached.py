"""What is computed once for every sample and then read: coarse outputs, degraded pictures, latents.

It lies in a folder whose name is the fingerprint of how it was made, so that another recipe, degradation or
set of weights never finds it; and in files named by the content of the sample, so that pictures that are
added or renamed cost nothing for the others.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from facerestore.core.errors import ConfigError, DataError, OutputError, ShapeError
from facerestore.data.index import Entry
from facerestore.data.pictures import Listed, Sample, stacked
from facerestore.imaging.read import read_image
from facerestore.imaging.write import write_image
from facerestore.weights.load import read_tensors
from facerestore.weights.write import write_tensors

Make = Callable[[Mapping[str, Any]], Mapping[str, torch.Tensor]]
"""A batch of samples, each with its `seed`, to the fields that are kept, (B,...)."""


def content_seed(entry: Entry) -> int:
    """The seed with which a sample is degraded or restored for the cache: it follows from its content."""
    return int.from_bytes(hashlib.sha256(f"cached/{entry.sha256}".encode()).digest()[:8], "big") >> 1


def fill(
    dataset: Listed,
    folder: str | Path,
    fingerprint: str,
    make: Make,
    fields: Sequence[str],
    *,
    batch: int = 1,
    done: Callable[[int], None] | None = None,
) -> int:
    """Compute what is not there yet.

    It may be interrupted at any time: files appear whole or not at all, and the next call goes on. Pictures
    are kept as PNG with 8 bits, latents (`z_...`) as safetensors in the dtype in which they come.

    Args:
        dataset: the samples.
        folder: of all caches.
        fingerprint: of everything that `make` depends on: recipe, weights, degradation, size.
        make: computes the fields of a batch.
        fields: what it makes: `coarse`, `lq`, `z_hq`, ...
        batch: samples a call.
        done: told after each call how many samples it computed.

    Returns:
        How many samples were computed.

    Raises:
        ConfigError: if the fingerprint cannot name a folder, or there are no fields.
        DataError: if `make` made other fields.
        ShapeError: if it made another number of them.
        OutputError: if a file cannot be written.
    """
    place = _place(folder, fingerprint, fields)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{place}: cannot be made ({error.strerror or error})") from error
    todo = [
        index
        for index, entry in enumerate(dataset.entries)
        if not all(_file(place, entry, field).is_file() for field in fields)
    ]
    for begin in range(0, len(todo), batch):
        part = todo[begin : begin + batch]
        entries = [dataset.entries[index] for index in part]
        samples = [
            {**dataset[index], "seed": content_seed(entry)}
            for index, entry in zip(part, entries, strict=True)
        ]
        made = make(stacked(samples))
        if set(made) != set(fields):
            raise DataError(f"{', '.join(fields)} were to be made, {', '.join(made) or 'nothing'} was")
        for field, values in made.items():
            if len(values) != len(part):
                raise ShapeError(f"{len(part)} of {field}, one a sample", values.shape)
            for entry, value in zip(entries, values, strict=True):
                _write(_file(place, entry, field), field, value)
        if done is not None:
            done(len(part))
    return len(todo)


class Cached:
    """A data set whose samples have fields that were computed before.

    Args:
        dataset: the samples.
        folder: of all caches, as `fill` was given it.
        fingerprint: likewise.
        fields: what is read; they take the place of fields of the same name.

    Raises:
        DataError: if something is missing.
    """

    def __init__(self, dataset: Listed, folder: str | Path, fingerprint: str, fields: Sequence[str]) -> None:
        self.place = _place(folder, fingerprint, fields)
        self.dataset, self.fields = dataset, tuple(fields)
        self.entries: Sequence[Entry] = dataset.entries
        missing = [
            entry.key
            for entry in self.entries
            if not all(_file(self.place, entry, field).is_file() for field in fields)
        ]
        if missing:
            raise DataError(
                f"{self.place}: {', '.join(fields)} of {len(missing)} of {len(self.entries)} samples are not "
                f"there, the first is {missing[0]}; call fill with the same fingerprint, it goes on"
            )

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """The sample with its fields.

        Raises:
            ImageError, WeightsError: if a file is damaged; the message names it.
        """
        entry = self.entries[index]
        return {
            **self.dataset[index],
            **{field: _read(_file(self.place, entry, field), field) for field in self.fields},
        }


def _place(folder: str | Path, fingerprint: str, fields: Sequence[str]) -> Path:
    if not fingerprint or Path(fingerprint).name != fingerprint or fingerprint.startswith("."):
        raise ConfigError(f"{fingerprint!r} cannot name a folder; use the hex digits of a fingerprint")
    if not fields:
        raise ConfigError("name at least one field to keep: coarse, lq, z_hq")
    return Path(folder) / fingerprint


def _file(place: Path, entry: Entry, field: str) -> Path:
    if not entry.sha256:
        raise ConfigError(f"{entry.key} was not scanned; its content is not known")
    ending = "safetensors" if field.startswith("z_") else "png"
    return place / entry.sha256[:2] / f"{entry.sha256[:32]}.{field}.{ending}"


def _write(path: Path, field: str, value: torch.Tensor) -> None:
    path.parent.mkdir(exist_ok=True)
    if field.startswith("z_"):
        write_tensors(path, {field: value.cpu()}, {})
    else:
        write_image(path, value.float().clamp(0, 1))


def _read(path: Path, field: str) -> torch.Tensor:
    return read_tensors(path)[field] if field.startswith("z_") else read_image(path).srgb()[0]
