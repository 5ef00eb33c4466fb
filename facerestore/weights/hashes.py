"""The sha256 of files and folders; a big file's is remembered, so that 12 GB are read once and not daily."""

import hashlib
import logging
import time
from pathlib import Path
from typing import TypeGuard

from facerestore.weights.records import read_record, write_record

logger = logging.getLogger(__name__)

BIG_BYTES = 2**26
"""Smaller files take less than a tenth of a second, and are hashed each time."""
_SETTLED_NS = 2 * 10**9  # coarsest clock of a file system: what changed just now may change again unseen


def sha256_of(path: Path, *, record: Path | None = None, anew: bool = False) -> str:
    """The sha256 of a file, or of a folder: that of its files' names and hashes.

    Of a folder count the settings, and the tensors as safetensors, or as pickles if there are none.

    Args:
        path: the file or folder.
        record: where hashes of big files are remembered, by place, size and time of change; None for nowhere.
        anew: whether all is read whatever is remembered; what is found takes its place.
    """
    if not path.is_dir():
        return _file_sha256(path) if record is None else _remembered(path, record, anew)
    files = sorted(file for file in path.iterdir() if file.is_file())
    kind = ".safetensors" if any(file.suffix == ".safetensors" for file in files) else ".bin"
    counting = [file for file in files if file.suffix in (".json", kind)]
    lines = "".join(f"{file.name} {sha256_of(file, record=record, anew=anew)}\n" for file in counting)
    return hashlib.sha256(lines.encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _remembered(path: Path, record: Path, anew: bool) -> str:
    before = path.stat()
    if before.st_size < BIG_BYTES:
        return _file_sha256(path)
    place, state = str(path.resolve()), [before.st_size, before.st_mtime_ns]
    entry = read_record(record).get(place)
    known = entry[2] if isinstance(entry, list) and len(entry) == 3 and entry[:2] == state else None
    if _is_sha256(known) and not anew:
        return known
    began = time.time_ns()
    digest = _file_sha256(path)
    after = path.stat()
    if (
        digest != known
        and [after.st_size, after.st_mtime_ns] == state
        and began - before.st_mtime_ns > _SETTLED_NS
    ):
        try:
            write_record(record, read_record(record) | {place: [*state, digest]})
        except OSError as error:
            logger.info("the sha256 of %s is not remembered: %s", path, error)
    return digest


def _is_sha256(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
