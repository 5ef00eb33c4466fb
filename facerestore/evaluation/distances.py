"""Distances between all pictures of a set and others: what describes each picture is kept by its content."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from facerestore.core.errors import FaceRestoreError, OutputError
from facerestore.evaluation.measuring import Picture, why_absent
from facerestore.evaluation.pictures import Case, Side
from facerestore.evaluation.protocol import Distance, Protocol
from facerestore.evaluation.rows import Row, Rows
from facerestore.metrics import Card
from facerestore.metrics.fid import (
    EXTRACTORS,
    Extractor,
    Statistics,
    card,
    ffhq_statistics,
    frechet_distance,
    statistics_of,
)
from facerestore.weights.load import read_tensors
from facerestore.weights.write import write_tensors

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

_LEAST = 2  # pictures of which there is a covariance


@dataclass(frozen=True, slots=True)
class _Place:
    """Where descriptions by one network lie, and for which sides they are needed."""

    extractor: Extractor
    folder: Path
    sides: tuple[Side, ...]

    def file(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / f"{sha256}.safetensors"


class Distances:
    """The distances of a protocol that can be measured here.

    Attributes:
        absent: those that cannot, and why.
        cards: what the others are.
    """

    def __init__(
        self,
        wanted: Mapping[str, Distance],
        places: Mapping[str, _Place],
        references: Mapping[str, Statistics],
        absent: Mapping[str, str],
        device: torch.device,
    ) -> None:
        self._wanted, self._places, self._references = wanted, places, references
        self._device = device
        self.absent = absent
        self.cards: dict[str, dict[str, Any]] = {
            key: asdict(card_of(each)) | {"against": each.against} for key, each in wanted.items()
        }

    def done(self, case: Case, rows: Rows) -> bool:
        """Whether the pictures of a measured case are described."""
        row = rows.rows.get(case.key)
        if row is None or row.problem is not None:
            return row is not None
        return all(
            place.file(row.sha256[side]).is_file() for place in self._places.values() for side in place.sides
        )

    def describe(self, pictures: Sequence[Picture]) -> None:
        """Describe pictures of one size, and keep it on disk.

        Raises:
            OutputError: if it cannot be written.
        """
        for place in self._places.values():
            for side in place.sides:
                files = [place.file(picture.sha256[side]) for picture in pictures]
                new = [number for number, file in enumerate(files) if not file.is_file()]
                if not new:
                    continue
                batch = torch.cat([pictures[number].images[side] for number in new]).to(self._device)
                for number, features in zip(new, place.extractor(batch).float().cpu(), strict=True):
                    _keep(files[number], features)

    def measure(self, rows: Sequence[Row]) -> tuple[dict[str, float | None], dict[str, str]]:
        """The distances over all rows, and why one could not be measured."""
        values: dict[str, float | None] = dict.fromkeys(self.absent)
        absent: dict[str, str] = {}
        for key, distance in self._wanted.items():
            place = self._places[distance.metric]
            values[key] = None
            if len(rows) < _LEAST:
                absent[key] = f"statistics are of {_LEAST} pictures or more, there are {len(rows)}"
                continue
            ours = _statistics(place, rows, "restored")
            theirs = _statistics(place, rows, "hq") if distance.against == "hq" else self._references[key]
            values[key] = frechet_distance(ours, theirs)
        return values, absent


def build_distances(
    protocol: Protocol, store: "WeightStore", device: torch.device, sides: Sequence[Side], folder: Path
) -> Distances:
    """Make what the distances of a protocol need.

    Args:
        protocol: names them.
        store: where weights are found.
        device: where they go.
        sides: which pictures there are.
        folder: where descriptions are kept.
    """
    wanted: dict[str, Distance] = {}
    places: dict[str, _Place] = {}
    references: dict[str, Statistics] = {}
    absent: dict[str, str] = {}
    for distance in protocol.distances:
        if distance.against == "hq" and "hq" not in sides:
            absent[distance.key] = "there are no sharp pictures to compare with; give --hq DIR"
            continue
        try:
            if distance.against == "ffhq":
                references[distance.key] = ffhq_statistics(store, distance.metric)
            if distance.metric not in places:
                extractor = EXTRACTORS[distance.metric](store, device)
                name = "-".join((distance.metric, *(store.sha256(w)[:12] for w in extractor.card.weights)))
                places[distance.metric] = _Place(extractor, folder / name, ("restored",))
        except (FaceRestoreError, ImportError) as error:
            absent[distance.key] = why_absent(card_of(distance), error)
            continue
        wanted[distance.key] = distance
        if distance.against == "hq":
            place = places[distance.metric]
            places[distance.metric] = _Place(place.extractor, place.folder, ("restored", "hq"))
    return Distances(wanted, places, references, absent, device)


def card_of(distance: Distance) -> Card:
    """What a distance is, with the published statistics that it is measured to."""
    known = card(distance.metric)
    return replace(known, weights=(*known.weights, *statistics_of(distance.metric, distance.against)))


def _statistics(place: _Place, rows: Sequence[Row], side: Side) -> Statistics:
    return Statistics.of(torch.stack([_kept(place.file(row.sha256[side])) for row in rows]))


def _keep(file: Path, features: Tensor) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{file.parent}: {error.strerror or error}") from error
    write_tensors(file, {"features": features.contiguous()}, {})


def _kept(file: Path) -> Tensor:
    return read_tensors(file)["features"]
