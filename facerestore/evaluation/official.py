"""The two CSV files that the program of the NTIRE challenges writes, for those who compare with it."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from facerestore.evaluation.protocol import ALL
from facerestore.evaluation.rows import Row

NAMES = {
    "niqe-pyiqa": "NIQE",
    "clipiqa": "CLIP_IQA",
    "maniqa": "MANIQA",
    "musiq": "MUSIQ",
    "qalign": "QALIGN",
    "identity-adaface": "ID_Sim",
}
"""Our columns by their names in these files; what has none is not in them."""
_HEADER = ("Dataset", "NIQE", "CLIP_IQA", "MANIQA", "MUSIQ", "QALIGN", "FID", "ID_Sim", "low_ID_Sim", "Total")


def official_total(
    table: Mapping[str, Mapping[str, float | None]],
    fid: float | None,
    low: Mapping[str, int],
    score: Mapping[str, float],
) -> str:
    """`<parent>--<folder>_total.csv`: a line a subset, `All`, and the terms of the score.

    Args:
        table: subset, and `All`, to our columns to mean, in the order of the lines.
        fid: of all pictures.
        low: subset, and `All`, to the number of faces below the threshold.
        score: the terms by the names of this file, without `Total`.

    Returns:
        The file's text; what is not there is 0, as in the original.
    """
    lines: list[list[object]] = [list(_HEADER)]
    for subset, means in table.items():
        named = {NAMES[key]: value for key, value in means.items() if key in NAMES and value is not None}
        if subset == ALL and fid is not None:
            named["FID"] = fid
        cells: dict[str, object] = {**named, "low_ID_Sim": low.get(subset, 0)}
        lines.append([subset, *(cells.get(name, 0) for name in _HEADER[1:])])
    terms: dict[str, float] = {**score, "Total": sum(score.values())}
    lines.append(["Weighted Score", *(terms.get(name, 0) for name in _HEADER[1:])])
    return _written(lines)


def official_pictures(rows: Sequence[Row]) -> str:
    """`<parent>--<folder>.csv`: a line a picture, its columns in the order of the alphabet.

    Two pictures of one name in two subsets are two lines here; the original keeps the last.
    """
    keys = sorted({NAMES[key] for row in rows for key in row.values if key in NAMES} | {"Dataset"})
    lines: list[list[object]] = [["Filename", *keys]]
    for row in rows:
        cells: dict[str, object] = {NAMES[key]: value for key, value in row.values.items() if key in NAMES}
        cells["Dataset"] = row.subset
        lines.append([f"{PurePosixPath(row.key).name}.png", *(cells.get(key, 0) for key in keys)])
    return _written(lines)


def _written(lines: Sequence[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(lines)
    return text.getvalue()
