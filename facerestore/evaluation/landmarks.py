"""The five points by which a face is put upright for its identity: of a table, or found."""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from facerestore.core.errors import DataError
from facerestore.evaluation.pictures import Case
from facerestore.faces.detect import FaceDetector

_POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
COLUMNS = ("filename", "dataset", *(f"{point}_{axis}" for point in _POINTS for axis in "xy"))
"""What the official tables have, beside a box that nothing reads."""
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Landmarks:
    """Five points by subset and name, as `test_2026_face.csv` has them.

    Attributes:
        path: of the table.
        faces: (subset, name without ending) to five points in pixels.
    """

    path: Path
    faces: Mapping[tuple[str, str], Points]

    def of(self, case: Case) -> Points | None:
        """The points of a picture, None where the table has none."""
        name = PurePosixPath(case.key).name
        bare = name.partition(".")[0]  # the official program cuts at the first dot
        return self.faces.get((case.subset.casefold(), name)) or self.faces.get(
            (case.subset.casefold(), bare)
        )


def read_landmarks(path: Path) -> Landmarks:
    """Read a table of five points.

    Names are text, whatever they look like: `0060` is not 60.

    Raises:
        DataError: if it cannot be read, lacks a column, holds no number, or has two rows for one picture.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            absent = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if absent:
                raise DataError(f"{path}: the columns {', '.join(absent)} are missing")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from error
    faces: dict[tuple[str, str], Points] = {}
    for number, row in enumerate(rows, 2):
        try:
            points = tuple((float(row[f"{point}_x"]), float(row[f"{point}_y"])) for point in _POINTS)
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}, line {number}: ten numbers were expected ({error})") from error
        if not all(math.isfinite(value) for point in points for value in point):
            raise DataError(f"{path}, line {number}: a point is not finite")
        place = (row["dataset"].casefold(), row["filename"])
        if place in faces:
            raise DataError(f"{path}, line {number}: a second row for {row['dataset']}/{row['filename']}")
        faces[place] = points
    return Landmarks(path, faces)


def found_points(detector: FaceDetector, pictures: Mapping[str, torch.Tensor]) -> tuple[Points, str] | None:
    """The five points of the largest face that is found, and in which picture that was.

    Args:
        detector: that finds them.
        pictures: name to (1,3,H,W) in [0,1], all of one size and framing; the first with a face counts.
    """
    for name, picture in pictures.items():
        faces = detector.detect(picture)
        if faces:
            largest = max(faces, key=lambda face: face.area)
            return tuple((float(x), float(y)) for x, y in largest.landmarks.tolist()), name
    return None
