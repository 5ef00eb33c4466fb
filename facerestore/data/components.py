"""Where eyes and mouth lie, for losses on these parts: the component files of GFPGAN, read, made and used.

GFPGAN keeps (x, y, half) of the left eye, the right eye and the mouth of each face: the mean of the part's
points of the 68, and half the longer side of their bounding box, at least 16 px in a picture of 512 px. Left
and right are those of the picture.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from facerestore.core.errors import ConfigError, DataError, OutputError
from facerestore.data.index import Entry, Index, Removed
from facerestore.data.pictures import Listed, Sample
from facerestore.faces.detect import FaceDetector
from facerestore.imaging.whole import whole_file
from facerestore.weights.load import read_pickle

PARTS = ("left_eye", "right_eye", "mouth")
EYE_ENLARGE, MOUTH_ENLARGE = 1.4, 1.0
"""What GFPGAN multiplies the halves with; CodeFormer's own training takes 1.3 for the mouth."""

_POINTS = {"left_eye": slice(36, 42), "right_eye": slice(42, 48), "mouth": slice(48, 68)}
_LEAST = 16 / 512  # of the picture's side
_EYE_HALF = 0.2  # of the distance of the eyes; in the mean of many faces with 68 points it is 0.201
Part = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Components:
    """Parts of faces by the name of their picture.

    Attributes:
        size_px: side of the square pictures that the numbers are for.
        faces: name to part to (x, y, half) in pixels.
    """

    size_px: int
    faces: Mapping[str, Mapping[str, Part]]

    def parts(self, key: str) -> Mapping[str, Part] | None:
        """The parts of an entry: by its key, its key without ending, or the last part of that.

        Names that are numbers fit whatever their zeros: `00000/00042.png` finds `00000042` of GFPGAN's file.
        """
        whole = PurePosixPath(key)
        bare = str(whole.with_suffix("")) if whole.suffix else key
        names = [key, bare, whole.stem]
        if whole.stem.isdecimal():
            names += [f"{int(whole.stem):0{digits}d}" for digits in (8, 5)]
        return next((self.faces[name] for name in names if name in self.faces), None)


def parts_of_68(points: np.ndarray[Any, Any], size_px: int) -> dict[str, Part]:
    """The parts of a face by its 68 points (68,2), in pixels of a picture of `size_px`.

    Reference:
        TencentARC/GFPGAN, scripts/parse_landmark.py, which made its official file.

    Parity:
        that script at 7552a77 on the same points, to 1e-9 px.
    """
    if points.shape != (68, 2):
        raise DataError(f"68 points x, y of a face expected, got shape {points.shape}")
    parts: dict[str, Part] = {}
    for name, which in _POINTS.items():
        x, y = points[which].mean(axis=0).tolist()
        half = float(np.ptp(points[which], axis=0).max()) / 2
        parts[name] = (x, y, max(half, _LEAST * size_px))
    return parts


def parts_of_5(points: np.ndarray[Any, Any], size_px: int) -> dict[str, Part]:
    """The parts by five points (5,2), x and y: eyes, nose, mouth corners.

    The mouth reaches from corner to corner, as by 68 points of a closed mouth. An eye gets 0.2 of the
    distance of the eyes, what the eye of a mean face has. On the first face of FFHQ at 512 px this differs
    from GFPGAN's numbers by 2 px in the eyes and 11 px in the mouth, and by 2 to 4 px in the halves.
    """
    left, right, _, *corners = points.astype(float)
    eye = max(float(np.hypot(*(right - left))) * _EYE_HALF, _LEAST * size_px)
    middle = (corners[0] + corners[1]) / 2
    mouth = max(float(np.abs(corners[1] - corners[0]).max()) / 2, _LEAST * size_px)
    (lx, ly), (rx, ry), (mx, my) = left.tolist(), right.tolist(), middle.tolist()
    return {"left_eye": (lx, ly, eye), "right_eye": (rx, ry, eye), "mouth": (mx, my, mouth)}


def find_components(dataset: Listed, detector: FaceDetector) -> tuple[Components, tuple[Removed, ...]]:
    """Find the parts of the largest face of every sample.

    Args:
        dataset: square pictures of one size.
        detector: finds the five points.

    Returns:
        The parts by the keys of the entries, and the entries in which no face was found.

    Raises:
        DataError: if a sample is not square, or of another size than the first.
        ImageError: if a picture cannot be read.
    """
    faces: dict[str, Mapping[str, Part]] = {}
    removed: list[Removed] = []
    size_px = 0
    for index, entry in enumerate(dataset.entries):
        image = dataset[index]["hq"]
        size_px = size_px or int(image.shape[2])
        if tuple(image.shape[1:]) != (size_px, size_px):
            raise DataError(f"{entry.key}: {tuple(image.shape[1:])}, expected {size_px} x {size_px} px")
        found = detector.detect(image[None])
        if found:
            faces[entry.key] = parts_of_5(found[0].landmarks, size_px)
        else:
            removed.append(Removed(entry.key, "no face", "none was found"))
    return Components(size_px, faces), tuple(removed)


def components_of_landmarks(
    landmarks: Mapping[str, Sequence[Sequence[float]]], from_px: float, size_px: int = 512
) -> Components:
    """The parts by 68 points a face.

    Args:
        landmarks: name to 68 pairs x, y; see `read_landmarks`, and `ffhq_landmarks` for FFHQ.
        from_px: side of the pictures that the points are in.
        size_px: side of the pictures that the result is for.
    """
    scale = size_px / from_px
    return Components(
        size_px,
        {name: parts_of_68(np.asarray(points, float) * scale, size_px) for name, points in landmarks.items()},
    )


def read_landmarks(path: str | Path) -> dict[str, list[list[float]]]:
    """68 points a face from a CSV table.

    A row is a name and 136 numbers: x and y of each point in turn, or with a first line of names in which
    two columns of x follow each other (as OpenFace writes), all x before all y.

    Raises:
        DataError: if the table cannot be read so; the message names the line.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from error
    apart = False
    first = 1
    if rows and not _is_number(rows[0][-1]):
        names = [name.lower() for name in rows.pop(0)]
        apart = len(names) > 2 and names[1].startswith("x") and names[2].startswith("x")
        first = 2
    landmarks: dict[str, list[list[float]]] = {}
    for number, (name, *cells) in enumerate(rows, first):
        if len(cells) != 136 or not all(map(_is_number, cells)):
            raise DataError(f"{path}, line {number}: a name and 136 numbers expected, 68 points x, y")
        values = np.array(cells, float)
        landmarks[name] = (values.reshape(2, 68).T if apart else values.reshape(68, 2)).tolist()
    if not landmarks:
        raise DataError(f"{path}: holds no points")
    return landmarks


def read_components(path: str | Path, size_px: int = 512) -> Components:
    """Read a component file: JSON as `write_components` writes it, or GFPGAN's, without executing anything.

    Args:
        path: the file.
        size_px: side of the pictures that GFPGAN's is for; JSON says it itself.

    Raises:
        WeightsError: if it is a pickle that would run code, or is damaged.
        DataError: if it holds something else.
    """
    file = Path(path)
    if file.suffix.lower() == ".json":
        try:
            content = json.loads(file.read_text("utf-8"))
            size_px, faces = int(content["size_px"]), content["faces"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(f"{file}: no component file ({type(error).__name__}: {error})") from error
    else:
        faces = read_pickle(file)
    if not isinstance(faces, dict) or not faces:
        raise DataError(f"{file}: expected left_eye, right_eye and mouth of each face, by its name")
    return Components(size_px, {str(name): _checked(file, name, parts) for name, parts in faces.items()})


def write_components(path: str | Path, components: Components, keys: Sequence[str] = ()) -> Path:
    """Write a component file: JSON, or `.pth` for GFPGAN itself.

    GFPGAN knows a face by the place of its picture in the sorted list of the folder, written with eight
    digits; `keys` is that list, and a picture without face leaves its number out.

    Args:
        path: ends in .json or .pth.
        components: what to write.
        keys: of all pictures, for .pth.

    Raises:
        ConfigError: if the name ends otherwise, or .pth was asked for without keys.
        OutputError: if the file cannot be written.
    """
    target = Path(path)
    kind = target.suffix.lower()
    if kind not in (".json", ".pth") or (kind == ".pth" and not keys):
        raise ConfigError(f"{target}: a component file ends in .json or, if the keys are given, in .pth")
    if not target.parent.is_dir():
        raise OutputError(f"{target}: there is no folder {target.parent}")
    with whole_file(target) as stream:
        if kind == ".json":
            rows = {
                name: {part: [round(v, 3) for v in values] for part, values in parts.items()}
                for name, parts in components.faces.items()
            }
            stream.write(json.dumps({"size_px": components.size_px, "faces": rows}).encode())
        else:
            # Numbers of numpy, as in the official file: GFPGAN subtracts one of them from a list.
            numbered = {
                f"{number:08d}": {part: [np.float64(v) for v in values] for part, values in parts.items()}
                for number, key in enumerate(keys)
                if (parts := components.parts(key)) is not None
            }
            torch.save(numbered, stream)
    return target


def boxes_of(
    parts: Mapping[str, Part], scale: float, *, eye: float = EYE_ENLARGE, mouth: float = MOUTH_ENLARGE
) -> dict[str, torch.Tensor]:
    """Boxes (4,) float32 around the parts: x0, y0, x1, y1 as in `Sample`.

    GFPGAN adds one pixel on the left and the top; here boxes are symmetric, so that the box of a mirrored
    face is the mirrored box.

    Args:
        parts: (x, y, half) of each.
        scale: from the pixels of the parts to those of the picture.
        eye: enlarges the halves of the eyes.
        mouth: enlarges that of the mouth.
    """
    boxes: dict[str, torch.Tensor] = {}
    for name, (x, y, half) in parts.items():
        half *= mouth if name == "mouth" else eye
        boxes[name] = (
            torch.tensor([x - half, y - half, x + half, y + half], dtype=torch.float64).mul(scale).float()
        )
    return boxes


def with_parts_only(index: Index, components: Components) -> Index:
    """The entries whose parts are known; the others are left out as `no parts`."""
    return index.without(
        Removed(entry.key, "no parts", "not in the component file")
        for entry in index.entries
        if components.parts(entry.key) is None
    )


class WithBoxes:
    """A data set whose samples have boxes around eyes and mouth.

    Args:
        dataset: square pictures.
        components: parts of all of them.
        eye: enlarges the eyes.
        mouth: enlarges the mouth.

    Raises:
        DataError: if parts of an entry are missing.
    """

    def __init__(
        self,
        dataset: Listed,
        components: Components,
        *,
        eye: float = EYE_ENLARGE,
        mouth: float = MOUTH_ENLARGE,
    ) -> None:
        lacking = [entry.key for entry in dataset.entries if components.parts(entry.key) is None]
        if lacking:
            raise DataError(
                f"eyes and mouth of {len(lacking)} entries are not known ({', '.join(lacking[:3])}); leave "
                "them out with with_parts_only(index, components)"
            )
        self.dataset, self.components, self.eye, self.mouth = dataset, components, eye, mouth
        self.entries: Sequence[Entry] = dataset.entries

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """The sample with `boxes`; raises as the data set does."""
        sample = self.dataset[index]
        parts = self.components.parts(self.entries[index].key) or {}
        scale = sample["hq"].shape[2] / self.components.size_px
        return {**sample, "boxes": boxes_of(parts, scale, eye=self.eye, mouth=self.mouth)}


def _checked(file: Path, name: object, parts: Any) -> dict[str, Part]:
    try:
        values = {part: tuple(float(value) for value in parts[part]) for part in PARTS}
    except (LookupError, TypeError, ValueError) as error:
        raise DataError(f"{file}: {name} has not (x, y, half) of {', '.join(PARTS)}") from error
    if not all(len(part) == 3 and np.isfinite(part).all() for part in values.values()):
        raise DataError(f"{file}: {name} has not three finite numbers of each part")
    return {part: (x, y, half) for part, (x, y, half) in values.items()}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
