"""Measure pictures: read once, shown to every metric, in batches where that changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from facerestore.core.errors import FaceRestoreError, ImageError, WeightsNotFound
from facerestore.evaluation.landmarks import Landmarks, Points, found_points
from facerestore.evaluation.pictures import Case, Side
from facerestore.evaluation.protocol import Column, Protocol
from facerestore.evaluation.rows import Row, hashes
from facerestore.faces.detect import FaceDetector
from facerestore.imaging.photo import Photo
from facerestore.imaging.read import read_image
from facerestore.metrics import Card, Metric, build, card
from facerestore.metrics.fid import card as distance_card
from facerestore.metrics.fid import statistics_of
from facerestore.metrics.fidelity import match_mean_std

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore


@dataclass(slots=True)
class Picture:
    """A case that was read.

    Attributes:
        case: the case.
        sha256: of each of its files, by side.
        images: (1,3,H,W) float32 in [0,1], by side; empty where there is a problem.
        converted: what reading changed.
        problem: kind and message, if it cannot be measured.
    """

    case: Case
    sha256: Mapping[str, str]
    images: dict[Side, Tensor] = field(default_factory=dict[Side, Tensor])
    converted: tuple[str, ...] = ()
    problem: tuple[str, str] | None = None


def read(case: Case, side_px: int) -> Picture:
    """Read the files of a case.

    Alpha is left out, grey is repeated, 16 bits are kept, a colour profile is converted to sRGB: each of
    these is recorded, since the programs that others measure with do something else.

    Args:
        case: the case.
        side_px: which both sides of restored and degraded pictures have; 0 for any.
    """
    picture = Picture(case, hashes(case))
    converted: list[str] = []
    for side in ("restored", "lq", "hq"):
        path = case.path(side)
        if path is None:
            continue
        try:
            photo = read_image(path)
        except ImageError as error:
            picture.problem = ("unreadable", f"{side}: {str(error).replace(str(path), path.name)}")
            return picture
        picture.images[side] = photo.srgb()
        converted += [f"{side}: {change}" for change in _changes(photo)]
    picture.converted = tuple(converted)
    picture.problem = _misfit(picture.images, side_px)
    return picture


def _changes(photo: Photo) -> list[str]:
    changes: list[str] = []
    if photo.mode in ("LA", "RGBA"):
        changes.append("alpha left out")
    if photo.mode in ("L", "LA"):
        changes.append("grey repeated to three channels")
    if photo.mode == "CMYK":
        changes.append("CMYK converted to sRGB")
    if photo.bit_depth == 16:
        changes.append("16 bits kept")
    if photo.icc_profile is not None:
        changes.append("colours converted from the profile to sRGB")
    return [*changes, *photo.notes]


def _misfit(images: Mapping[Side, Tensor], side_px: int) -> tuple[str, str] | None:
    sizes = {side: (image.shape[3], image.shape[2]) for side, image in images.items()}
    shown = ", ".join(f"{side} {width} x {height}" for side, (width, height) in sizes.items())
    judged = [sizes[side] for side in ("restored", "lq") if side in sizes]
    if side_px and any(size != (side_px, side_px) for size in judged):
        return "wrong size", f"{side_px} x {side_px} px were expected: {shown}"
    if len(set(sizes.values())) > 1:
        return "wrong size", f"pictures that are compared have one size: {shown}"
    return None


@dataclass(frozen=True, slots=True)
class Meters:
    """What is measured of each picture.

    Attributes:
        columns: each with its metric, ready.
        absent: columns that cannot be measured here, and why.
        landmarks: of a table, if there is one.
        detector: that finds five points where the table has none; None if nothing needs points.
        match_mean_std: see `Protocol`.
        device: where it is computed.
    """

    columns: tuple[tuple[Column, Metric], ...]
    absent: Mapping[str, str]
    landmarks: Landmarks | None
    detector: FaceDetector | None
    match_mean_std: bool
    device: torch.device

    def measure(self, pictures: Sequence[Picture]) -> list[Row]:
        """Measure pictures of one size, none of which has a problem."""
        points = [self._points(picture) for picture in pictures]
        values: list[dict[str, float]] = [{} for _ in pictures]
        errors: list[dict[str, str]] = [{} for _ in pictures]
        stacked: dict[Side, Tensor] = {
            side: torch.cat([picture.images[side] for picture in pictures]).to(self.device)
            for side in pictures[0].images
        }
        for column, metric in self.columns:
            which = list(range(len(pictures)))
            if metric.card.compares == "person":
                for index in which:
                    if points[index] is None:
                        errors[index][column.key] = "no face was found, and no table has its points"
                which = [index for index in which if points[index] is not None]
            for part in [which] if metric.card.batched and len(which) > 1 else [[index] for index in which]:
                self._fill(column, metric, part, stacked, points, values, errors)
        return [
            Row(
                key=picture.case.key,
                subset=picture.case.subset,
                sha256=picture.sha256,
                width=picture.images["restored"].shape[3],
                height=picture.images["restored"].shape[2],
                converted=picture.converted,
                points=where[0] if where else (),
                points_from=where[1] if where else "",
                values=mine,
                errors=failed,
            )
            for picture, where, mine, failed in zip(pictures, points, values, errors, strict=True)
        ]

    def _points(self, picture: Picture) -> tuple[Points, str] | None:
        if self.detector is None:
            return None
        listed = self.landmarks.of(picture.case) if self.landmarks else None
        if listed is not None:
            return listed, "table"
        sides = {side: picture.images[side] for side in ("lq", "restored") if side in picture.images}
        return found_points(self.detector, sides)

    def _fill(
        self,
        column: Column,
        metric: Metric,
        part: list[int],
        stacked: Mapping[Side, Tensor],
        points: Sequence[tuple[Points, str] | None],
        values: list[dict[str, float]],
        errors: list[dict[str, str]],
    ) -> None:
        """Measure one column of some pictures; a batch that fails is measured picture by picture."""
        pred = stacked["restored"][part]
        reference = stacked[column.against][part] if column.against in ("lq", "hq") else None
        if self.match_mean_std and metric.card.compares == "sharp":
            pred = match_mean_std(pred, stacked["hq"][part])
        five = None
        if metric.card.compares == "person":
            five = torch.tensor([(points[index] or ((), ""))[0] for index in part])
        try:
            numbers = metric(pred, reference, points=five).detach().double().cpu().tolist()
        except (FaceRestoreError, RuntimeError, ValueError, AssertionError) as error:
            if len(part) > 1:
                for index in part:
                    self._fill(column, metric, [index], stacked, points, values, errors)
            else:
                errors[part[0]][column.key] = f"{type(error).__name__}: {error}".splitlines()[0]
            return
        for index, number in zip(part, numbers, strict=True):
            if number - number == 0:  # neither infinite nor NaN
                values[index][column.key] = number
            else:
                errors[index][column.key] = f"is {number}"


def build_meters(
    protocol: Protocol,
    store: "WeightStore",
    device: torch.device,
    sides: Sequence[Side],
    landmarks: Landmarks | None = None,
) -> Meters:
    """Make every metric of a protocol that can be measured here.

    Args:
        protocol: names the columns.
        store: where weights are found.
        device: where they go.
        sides: which pictures there are: `restored`, and `lq` and `hq` where their folders were given.
        landmarks: of a table.

    Raises:
        ConfigError: if a column names no metric.
    """
    columns: list[tuple[Column, Metric]] = []
    absent: dict[str, str] = {}
    for column in protocol.columns:
        card(column.metric)  # an unknown name is an error of the protocol, not a metric that is missing
        if column.stands_in and column.stands_in in {built.metric for built, _ in columns}:
            continue
        if column.against in ("lq", "hq") and column.against not in sides:
            kind = {"lq": "degraded", "hq": "sharp"}[column.against]
            absent[column.key] = f"there are no {kind} pictures to compare with; give --{column.against} DIR"
            continue
        try:
            columns.append((column, build(column.metric, store, device)))
        except (FaceRestoreError, ImportError) as error:
            absent[column.key] = why_absent(card(column.metric), error)
    needed = any(metric.card.compares == "person" for _, metric in columns)
    detector = FaceDetector.load(store) if needed else None
    return Meters(tuple(columns), absent, landmarks, detector, protocol.match_mean_std, device)


def why_absent(what: Card, error: Exception) -> str:
    """Why a metric cannot be measured, in a sentence; where a weight is missing, without naming places."""
    if isinstance(error, WeightsNotFound) and what.weights:
        names = " ".join(what.weights)
        return f"needs {names}, not all of it is here; `facerestore weights show {what.weights[0]}` says more"
    return " ".join(str(error).split())


def cards_of(meters: Meters) -> dict[str, dict[str, Any]]:
    """What each column is, for the report."""
    return {
        column.key: asdict(metric.card) | {"against": column.against} for column, metric in meters.columns
    }


def weights_of(protocol: Protocol) -> tuple[str, ...]:
    """Names of the weights that the columns and distances of a protocol need, where all can be measured."""
    cards = [card(column.metric) for column in protocol.columns]
    names = [name for each in cards for name in each.weights]
    for distance in protocol.distances:
        names += [*distance_card(distance.metric).weights, *statistics_of(distance.metric, distance.against)]
    return tuple(dict.fromkeys(names))
