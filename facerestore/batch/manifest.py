"""`manifest.jsonl`: what a folder of results is, one JSON line a picture."""

import hashlib
import json
import os
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from facerestore.core.errors import OutputError

NAME = "manifest.jsonl"

Row = Mapping[str, Any]
"""One line of the manifest. The keys:

source, input_sha256, input_bytes: the file as it was named, and its content (null if it could not be read).
output: name below the output folder; output_sha256, output_bytes: what was written (null if nothing was).
status: `restored`, `copied` (it has faces, and nothing was to be done), `no face` or `failed`.
faces: one object a face, with index, box, landmarks, confidence, status, size_px, roll_deg, facts,
    identity_distance, identity_similarity, as in `FaceResult`.
notes: sentences for a person. seconds: wall time by part. error, error_kind: null unless failed.
run: what the output depends on besides the input: recipe, fingerprint, weights, seed, options, format.
"""


class Digest(NamedTuple):
    """Content of a file: sha256 in hex, size in bytes."""

    sha256: str
    bytes: int


def digest(path: Path) -> Digest:
    """Hash a file.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        return Digest(hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size)


class _Known(NamedTuple):
    """What is remembered of a row; small, because there is one for every picture."""

    offset: int
    input: str | None
    output: Digest | None
    status: str
    run: str


class Manifest:
    """The manifest of an output folder, open for appending.

    Every line is on disk before `append` returns. A last line that a killed run left torn is cut off when the
    manifest is opened; the picture it spoke of is simply not done. The last line about an output counts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / NAME
        self._known: dict[str, _Known] = {}
        self._written: set[str] = set()
        self._file: FileIO | None = None  # opened by the first line: a run that does nothing leaves nothing
        if not self.path.exists():
            return
        try:
            self._read()
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror or error}; choose another folder") from error

    def _read(self) -> None:
        whole = 0
        with self.path.open("r+b") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    file.truncate(whole)
                    break
                row = _parse(line)
                if row is not None:
                    self._remember(row, whole)
                whole += len(line)

    def _remember(self, row: Row, offset: int) -> None:
        written = row.get("output_sha256")
        self._known[row["output"]] = _Known(
            offset,
            row.get("input_sha256"),
            Digest(written, row["output_bytes"]) if written else None,
            row["status"],
            _key(row["run"]),
        )
        if written:
            self._written.add(row["output"])

    @property
    def outputs(self) -> frozenset[str]:
        """Names of all outputs that a run has ever written."""
        return frozenset(self._written)

    def is_ours(self, output: str) -> bool:
        """Whether a run has ever written an output of that name."""
        return output in self._written

    def is_done(self, output: str, source: Path, run: Mapping[str, Any], *, keeps_faceless: bool) -> bool:
        """Whether `output` is the intact result of the present `source` under `run`.

        Args:
            output: name below the folder.
            source: the input.
            run: what the pixels depend on besides the input.
            keeps_faceless: whether a picture without a face gets an output.
        """
        known = self._known.get(output)
        if known is None or known.status == "failed" or known.run != _key(run):
            return False
        if known.status == "no face" and (known.output is not None) != keeps_faceless:
            return False
        written = self.folder / output
        try:
            if known.output is not None and (
                written.stat().st_size != known.output.bytes or digest(written) != known.output
            ):
                return False
            return digest(source).sha256 == known.input
        except OSError:
            return False

    def row(self, output: str) -> Row:
        """The last row about an output.

        Raises:
            KeyError: if there is none.
        """
        with self.path.open("rb") as file:
            file.seek(self._known[output].offset)
            return json.loads(file.readline())

    def append(self, row: Row) -> None:
        """Add a row; it is on disk when this returns.

        Raises:
            OutputError: if it cannot be written; then the manifest is as it was.
        """
        try:
            if self._file is None:
                self._file = FileIO(self.path, "ab")
            end = self._file.seek(0, os.SEEK_END)
            try:
                _write_whole(self._file, _line(row))
            except OSError:
                self._file.truncate(end)
                raise
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror or error}") from error
        self._remember(row, end)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def _write_whole(file: FileIO, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]
    os.fsync(file.fileno())


def _line(row: Row) -> bytes:
    text = json.dumps(dict(row), ensure_ascii=False, separators=(",", ":"))
    try:
        return f"{text}\n".encode()
    except UnicodeEncodeError:  # a file name that is no Unicode: escaped, so that the manifest is
        return (json.dumps(dict(row), separators=(",", ":")) + "\n").encode()


def _key(run: Mapping[str, Any]) -> str:
    """Equal for runs that give the same pictures; only the version of this package counts, not torch's."""
    ours = run.get("versions", {}).get("facerestore")
    text = json.dumps({**run, "versions": ours}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _parse(line: bytes) -> Row | None:
    """A row, or None where the line is none (a disk that lost a block, a person with an editor)."""
    try:
        row = json.loads(line)
        is_row = isinstance(row["output"], str) and isinstance(row["run"], dict) and row["status"]
    except (ValueError, KeyError, TypeError):
        return None
    return row if is_row else None
