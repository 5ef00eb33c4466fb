"""FFHQ as it is published, and FFHQR, its retouched version."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from facerestore.core.errors import DataError
from facerestore.data.index import Entry, Index, Place, Removed
from facerestore.data.scan import Checks, scan
from facerestore.imaging.tree import pictures_below

METADATA = "ffhq-dataset-v2.json"
_RETOUCHING_LICENCE = "CC BY-NC-SA 4.0 (FFHQR)"


def index_ffhq(
    folder: str | Path,
    retouched: str | Path | None = None,
    checks: Checks | None = None,
    *,
    record: str | Path | None = None,
) -> Index:
    """The faces of FFHQ, their licences, and the retouched ones as targets.

    The keys are the five digits of a face's number, whatever the layout: `00000/00000.png` in thousands as
    published, or all in one folder, and of any size. Facts: `folder` (the thousand, "00000" to "69000", by
    which FFHQR is split: up to 55000 to train, 56000 to 62000 to validate, the rest to test), and where
    `ffhq-dataset-v2.json` lies there, `licence`, `author` and `category`.

    Args:
        folder: the folder of the data set or of its pictures.
        retouched: the same of FFHQR; then `hq` is the retouched face and `original` the face as it was.
        checks: what an `hq` must be.
        record: see `index_folder`.

    Raises:
        DataError: if one of them is no folder, or the JSON file is damaged.
        EmptyDataset: if no face can be used.
        OutputError: if the record cannot be written.
    """
    top = Path(folder)
    originals = _faces(top)
    targets = originals if retouched is None else _faces(Path(retouched))
    facts = _facts(top / METADATA)
    entries: list[Entry] = []
    removed: list[Removed] = []
    for number in sorted(originals.keys() | targets.keys()):
        if number not in originals or number not in targets:
            reason = "no original" if number not in originals else "no retouched face"
            removed.append(
                Removed(
                    number, reason, f"none of that number in {retouched if number in originals else folder}"
                )
            )
            continue
        files = {"hq": Place(targets[number])}
        known = {"folder": f"{int(number) // 1000 * 1000:05d}", **facts.get(number, {})}
        if retouched is not None:
            files["original"] = Place(originals[number])
            known["licence"] = "; ".join(filter(None, (known.get("licence"), _RETOUCHING_LICENCE)))
        entries.append(Entry(key=number, files=files, facts=known))
    return scan(
        entries,
        checks or Checks(),
        what=folder,
        record=None if record is None else Path(record),
        removed=removed,
    )


def ffhq_landmarks(folder: str | Path) -> dict[str, list[list[float]]]:
    """The 68 points of each face, x and y in pixels of the 1024 px pictures, by its number of five digits.

    Raises:
        DataError: if `ffhq-dataset-v2.json` is not in the folder, or is damaged.
    """
    path = Path(folder) / METADATA
    if not path.is_file():
        raise DataError(f"{path}: no such file; it comes with FFHQ (254 MB)")
    return {f"{int(number):05d}": item["image"]["face_landmarks"] for number, item in _metadata(path).items()}


def _faces(folder: Path) -> dict[str, Path]:
    """The faces below a folder by number, from the largest pictures that lie there."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder")
    parts = [part for part in folder.iterdir() if part.is_dir() and part.name.startswith("images")]
    top = max(parts, key=lambda part: _side(part.name)) if parts else folder
    named = {PurePosixPath(place).stem: path for path, place in pictures_below(top)}
    return {f"{int(stem):05d}": path for stem, path in named.items() if stem.isdecimal()}


def _side(name: str) -> int:
    """Pixels that the name of a folder such as `images1024x1024` states."""
    digits = name.removeprefix("images").partition("x")[0]
    return int(digits) if digits.isdecimal() else 0


def _facts(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    facts: dict[str, dict[str, str]] = {}
    for number, item in _metadata(path).items():
        about = item.get("metadata", {})
        found = {
            "licence": about.get("license"),
            "author": about.get("author"),
            "category": item.get("category"),
        }
        facts[f"{int(number):05d}"] = {name: str(value) for name, value in found.items() if value}
    return facts


def _metadata(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch it again") from error
    if not isinstance(content, dict) or not all(str(number).isdecimal() for number in content):
        raise DataError(f"{path}: expected one entry a face, by its number; fetch it again")
    return content
