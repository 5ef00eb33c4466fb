"""What is measured of each face before it is used: sharpness, grain, size and pose."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from facerestore.core.errors import OutputError
from facerestore.data.index import Entry
from facerestore.faces.align import align
from facerestore.faces.detect import FaceDetector
from facerestore.faces.similarity import scale_of, similarity_matrix
from facerestore.faces.templates import FFHQ_512
from facerestore.imaging.photo import Photo
from facerestore.imaging.sharpness import edge_blur_px, grain
from facerestore.imaging.whole import whole_file
from facerestore.weights.records import read_record, write_record

_ALIGNED_PX = 512
_DETECTED_PX = 1024  # longer side of the picture in which faces are searched
_NOSE_DEPTH = 0.5  # of the tip before the plane of eyes and mouth, in distances of the eyes
_NOSE_SHARE = 0.5636  # of the way from eyes to mouth, in the template
_EYES_TO_LENGTH = 0.96  # distance of the eyes over that way, in the template
_SAVED_EVERY = 100  # faces, some ten seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Of one picture; all but `faces` are of its largest face, and NaN where there is none.

    Attributes:
        faces: how many were found.
        confidence: that the largest is a face.
        face_px: how many pixels of the picture a crop of the face by the FFHQ template covers, a side: below
            512 it would have to be enlarged.
        blur_px: width of its edges in such a crop of 512 px; sharp faces have 1.5, see `edge_blur_px`.
        grain: of the crop, in units of [0,1], see `imaging.sharpness.grain`.
        yaw_deg: how far it looks to the right of the picture, negative to the left; an estimate.
        pitch_deg: how far it looks down, negative up; an estimate, in which a broad smile counts as down.
        roll_deg: how far it is turned clockwise in the plane of the picture.
    """

    faces: int
    confidence: float = math.nan
    face_px: float = math.nan
    blur_px: float = math.nan
    grain: float = math.nan
    yaw_deg: float = math.nan
    pitch_deg: float = math.nan
    roll_deg: float = math.nan


def measure(photo: Photo, detector: FaceDetector) -> Measures:
    """Measure a picture; faces are searched in at most 1024 px of its longer side."""
    reduced, scale = photo.reduced_srgb(_DETECTED_PX)
    found = detector.detect(reduced)
    if not found:
        return Measures(faces=0)
    face = found[0]
    landmarks = (face.landmarks + 0.5) / scale - 0.5  # in pixels of the photo
    matrix = similarity_matrix(landmarks[None], FFHQ_512)
    crop = align(photo.srgb(), matrix, _ALIGNED_PX).clamp(0, 1)
    yaw, pitch = pose_of(face.landmarks)
    return Measures(
        faces=len(found),
        confidence=face.confidence,
        face_px=_ALIGNED_PX / float(scale_of(matrix)[0]),
        blur_px=float(edge_blur_px(crop)[0]),
        grain=float(grain(crop)[0]),
        yaw_deg=yaw,
        pitch_deg=pitch,
        roll_deg=face.roll_deg,
    )


def pose_of(landmarks: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Estimate where a face looks from its five points.

    Eyes and mouth corners are taken as a plane, the tip of the nose as lying half a distance of the eyes
    before it, and the camera as far away. Then the nose moves by the tangent of the angle.

    Args:
        landmarks: (5,2), x then y, in the order of `faces.detect.Face`.

    Returns:
        Degrees to the right of the picture and downwards, each from -90 to 90; 0 for the FFHQ template.
    """
    eyes, nose, mouth = landmarks[:2].astype(float), landmarks[2].astype(float), landmarks[3:].astype(float)
    across = (eyes[1] - eyes[0] + mouth[1] - mouth[0]) / 2
    across /= np.hypot(*across)
    down = np.array([-across[1], across[0]])
    axis = mouth.mean(0) - eyes.mean(0)
    from_eyes = nose - eyes.mean(0)
    share = (from_eyes @ down) / (axis @ down)
    aside = from_eyes @ across - share * (axis @ across)
    yaw = math.atan2(aside, _NOSE_DEPTH * abs((eyes[1] - eyes[0]) @ across))
    pitch = math.atan((share - _NOSE_SHARE) / (_NOSE_DEPTH * _EYES_TO_LENGTH))
    return math.degrees(yaw), math.degrees(pitch)


def measure_all(
    entries: Sequence[Entry], detector: FaceDetector, *, record: str | Path | None = None
) -> dict[str, Measures]:
    """Measure the `hq` of every entry, by key; some tenths of a second each on a CPU.

    Args:
        entries: scanned ones, so that their content is known.
        detector: finds the faces.
        record: a JSON file that remembers what was measured, by content; None for nowhere.

    Raises:
        ImageError: if a picture cannot be read any more.
        OutputError: if the record cannot be written.
    """
    path = None if record is None else Path(record)
    known = {} if path is None else read_record(path)
    measured: dict[str, Measures] = {}
    new = 0
    try:
        for entry in entries:
            values = known.get(entry.sha256)
            if not isinstance(values, dict) or values.keys() != _NAMES:
                values = asdict(measure(entry.files["hq"].picture(), detector))
                known[entry.sha256] = values
                new += 1
                if new % _SAVED_EVERY == 0:
                    _remember(path, known)
            measured[entry.key] = Measures(**values)
    finally:
        if new:
            _remember(path, known)
    return measured


def _remember(path: Path | None, known: dict[str, Any]) -> None:
    if path is None:
        return
    try:
        write_record(path, known)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def write_measures(path: str | Path, measured: Mapping[str, Measures]) -> Path:
    """Write measures as CSV, one row a picture, to be looked at and sorted.

    Raises:
        OutputError: if it cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["key", *(field.name for field in fields(Measures))])
    for key, values in measured.items():
        writer.writerow([key, *(f"{v:.4g}" if isinstance(v, float) else v for v in asdict(values).values())])
    with whole_file(path) as stream:
        stream.write(text.getvalue().encode())
    return Path(path)


_NAMES = {field.name for field in fields(Measures)}
