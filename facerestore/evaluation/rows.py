"""What was measured of each picture, on disk as it comes, so that a run that is killed goes on."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from facerestore.core.errors import OutputError
from facerestore.evaluation.pictures import Case


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture.

    Attributes:
        key: see `Case`.
        subset: see `Case`.
        sha256: of each file that was read, by side.
        width: of the restored picture.
        height: of it.
        converted: what reading changed: alpha left out, grey repeated, 16 bits, a colour space.
        points: the five points for its identity, in pixels.
        points_from: `table`, `lq` or `restored`, or empty if nothing asked for them.
        values: metric to number, of those that could be measured.
        errors: metric to the reason why it could not.
        problem: kind and message where nothing could be measured.
    """

    key: str
    subset: str
    sha256: Mapping[str, str]
    width: int = 0
    height: int = 0
    converted: tuple[str, ...] = ()
    points: tuple[tuple[float, float], ...] = ()
    points_from: str = ""
    values: Mapping[str, float] = field(default_factory=dict[str, float])
    errors: Mapping[str, str] = field(default_factory=dict[str, str])
    problem: tuple[str, str] | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """From what `asdict` made, by way of JSON."""
        points = tuple((float(x), float(y)) for x, y in data["points"])
        problem = None if data["problem"] is None else (str(data["problem"][0]), str(data["problem"][1]))
        return cls(**{**data, "points": points, "problem": problem, "converted": tuple(data["converted"])})


def file_sha256(path: Path) -> str:
    """Of the content; empty where the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def hashes(case: Case) -> dict[str, str]:
    """Of each file of a case, by side."""
    sides = {"restored": case.restored, "lq": case.lq, "hq": case.hq}
    return {side: file_sha256(path) for side, path in sides.items() if path is not None}


class Rows:
    """The rows of a folder, open for appending: one file a process, `rows-0.jsonl`, `rows-1.jsonl`, ...

    A row counts if it was made by the same run: same protocol, metrics, weights and versions. Every row is on
    disk when `append` returns; a line that a killed run left torn is passed over.

    Args:
        folder: it is made.
        run: fingerprint of everything that a row depends on besides its pictures.
        process: number of this one.

    Raises:
        OutputError: if the folder cannot be made or read.
    """

    def __init__(self, folder: Path, run: str, process: int = 0) -> None:
        self.folder, self.run = folder, run
        self.path = folder / f"rows-{process}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.rows = self._read()
        except OSError as error:
            raise OutputError(f"{folder}: {error.strerror or error}; choose another folder") from error

    def _read(self) -> dict[str, Row]:
        found: dict[str, Row] = {}
        for data in json_lines(self.folder, "rows-*.jsonl"):
            try:
                if data.pop("run") == self.run:
                    found[data["key"]] = Row.of(data)
            except (KeyError, TypeError, ValueError):
                continue  # an editor's: that picture is measured again
        return found

    def reread(self) -> None:
        """Take in what other processes wrote."""
        self.rows = self._read()

    def done(self, case: Case) -> Row | None:
        """The row of a case, if it was measured with the content that its files have now."""
        row = self.rows.get(case.key)
        return row if row is not None and dict(row.sha256) == hashes(case) else None

    def append(self, row: Row) -> None:
        """Add a row.

        Raises:
            OutputError: if it cannot be written.
        """
        append_line(self.path, {"run": self.run} | asdict(row))
        self.rows[row.key] = row


def json_lines(folder: Path, pattern: str) -> Iterator[dict[str, Any]]:
    """What the files of a folder hold, a mapping a line; what is none, a torn line say, is passed over."""
    for path in sorted(folder.glob(pattern)):
        for line in path.read_bytes().splitlines():
            try:
                data = json.loads(line)
            except ValueError:
                continue
            if isinstance(data, dict):
                yield cast("dict[str, Any]", data)


def append_line(path: Path, data: Mapping[str, Any]) -> None:
    """Add a line; it is on disk when this returns. It never continues one that a killed run left torn.

    Raises:
        OutputError: if it cannot be written.
    """
    try:
        with path.open("a+b") as file:
            torn = file.tell() > 0 and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
            file.write((b"\n" if torn else b"") + json.dumps(dict(data), allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}; what is there already stays") from error
