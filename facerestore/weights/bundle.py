"""Copies weights into one folder for a machine without network, where `FACERESTORE_WEIGHTS` names it.

Every file appears whole or not at all and is read again after it was written; what is there already is not
copied again. What ships is left out: the other machine has it, in the version that its facerestore asks for.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from facerestore.core.errors import FaceRestoreError, OutputError, WeightsError
from facerestore.weights.folders import folder_files, read_json, require_complete, tensor_names
from facerestore.weights.spec import WeightSpec, manifest
from facerestore.weights.store import VARIABLE, WeightStore
from facerestore.weights.write import write_file

CONTENTS, README = "bundle.json", "README.txt"
Progress = Callable[[str, int, int], None]
"""Told the weight's name, the bytes that are done, and the bytes in total."""
_PIECE = 2**22
_README = """Weights of facerestore, for a machine without network.

Install facerestore there: what ships with it is not in this folder. Then say where the folder is, from the
root of the disk on:

  Linux, macOS:  export {variable}=/path/to/this/folder
  Windows:       setx {variable} X:\\path\\to\\this\\folder

`facerestore doctor` says which recipes run. {contents} has the size and the sha256 of every file.

Each weight keeps its licence wherever this folder goes. Some forbid commercial use, some were never licensed
at all: whoever passes the folder on answers for it.
"""


@dataclass(frozen=True, slots=True)
class _Weight:
    """A weight that is here.

    Attributes:
        spec: what is known about it.
        place: where it goes, below the bundle.
        files: what it consists of, by path below the bundle.
    """

    spec: WeightSpec
    place: PurePosixPath
    files: dict[str, Path]


def bundle(
    names: Iterable[str], folder: str | Path, *, on_progress: Progress | None = None
) -> dict[str, Path]:
    """Copy weights to where a store finds them below `folder`, and say there what they are.

    Beside them stand `README.txt` for people and `bundle.json` for programs, written last: the licence and
    the source of each weight, the size and the sha256 of each file. A bundle that is there is completed.

    Args:
        names: of weights; those that ship are left out.
        folder: the bundle.
        on_progress: see `Progress`.

    Returns:
        Where each weight is now, without those that ship.

    Raises:
        ConfigError: if a name is unknown.
        WeightsNotFound: names every weight that is not here; then nothing was copied.
        WeightsError: if one is damaged; then nothing was copied.
        OutputError: if the folder cannot be written, has too little room, or gives back other bytes.
    """
    store, root = WeightStore(), Path(folder)
    wanted = [spec for spec in map(store.spec, dict.fromkeys(names)) if spec not in manifest()]
    store.require(spec.name for spec in wanted)
    weights = [_found(store, spec) for spec in wanted]
    try:
        root.mkdir(parents=True, exist_ok=True)
        _require_room(root, weights)
        entries = _earlier(root)
        for weight in weights:
            entries[weight.spec.name] = _copied(weight, root, on_progress or _silent)
        contents = json.dumps({"weights": entries}, indent=1, sort_keys=True, ensure_ascii=False)
        write_file(root / CONTENTS, f"{contents}\n".encode())
        write_file(root / README, _readme(entries).encode())
    except FaceRestoreError:
        raise
    except OSError as error:
        raise OutputError(f"{root} cannot be filled: {error}; the same command goes on from here") from error
    return {weight.spec.name: root / weight.place for weight in weights}


def _silent(name: str, done: int, total: int) -> None:
    """Report nothing."""


def _found(store: WeightStore, spec: WeightSpec) -> _Weight:
    """A weight with its files, none of them damaged as far as their heads and lengths tell.

    Raises:
        WeightsError: if one is.
    """
    path = store.find(spec.name)
    place = PurePosixPath(spec.file).with_name(path.name)
    if path.is_dir():
        read = (
            folder_files(path, spec.form) if spec.is_folder else sorted(filter(Path.is_file, path.iterdir()))
        )
        files = {f"{place}/{file.name}": file for file in read}
    else:
        files = {str(place): path}
    try:
        for file in files.values():
            _require_whole(file)
        require_complete(files.values())
    except WeightsError as error:
        raise WeightsError(f"{spec.name} cannot be bundled from {path}: {error}") from error
    if spec.sha256:
        store.verify(spec.name)
    return _Weight(spec, place, files)


def _require_whole(file: Path) -> None:
    from facerestore.weights.load import is_safetensors

    if file.suffix == ".json":
        read_json(file, "get it again")
    elif file.suffix == ".safetensors" and is_safetensors(file):
        tensor_names(file)


def _require_room(root: Path, weights: list[_Weight]) -> None:
    """Refuse a disk that cannot take what is still to come."""
    files = {path: file for weight in weights for path, file in weight.files.items()}
    sizes = {path: file.stat().st_size for path, file in files.items()}
    needed = sum(size for path, size in sizes.items() if not _has_size(root / path, size))
    free = shutil.disk_usage(root).free
    if free < needed:
        raise OutputError(
            f"{root} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are still to come; make room, "
            "or name another folder"
        )


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _earlier(root: Path) -> dict[str, Any]:
    """What an earlier run put into the bundle and is still there."""
    try:
        entries = read_json(root / CONTENTS, "")["weights"]
        return {
            name: entry
            for name, entry in entries.items()
            if all(_has_size(root / path, file["bytes"]) for path, file in entry["files"].items())
        }
    except (WeightsError, LookupError, TypeError, AttributeError):  # none, or damaged: it is written again
        return {}


def _copied(weight: _Weight, root: Path, on_progress: Progress) -> dict[str, Any]:
    """Copy the files of a weight that are not there yet; returns what there is to say about it."""
    sizes = {path: file.stat().st_size for path, file in weight.files.items()}
    total, before = sum(sizes.values()), 0
    described: dict[str, Any] = {}
    for path, file in weight.files.items():
        digest = _copy(
            file, root / path, lambda done, at=before: on_progress(weight.spec.name, at + done, total)
        )
        before += sizes[path]
        described[path] = {"bytes": sizes[path], "sha256": digest}
        on_progress(weight.spec.name, before, total)
    spec = weight.spec
    about = {"licence": spec.licence, "source": spec.source, "citation": spec.citation, "note": spec.note}
    return about | {"files": described}


def _copy(source: Path, target: Path, on_bytes: Callable[[int], None]) -> str:
    """Make `target` a copy of `source` unless it is one; returns the sha256."""
    if _has_size(target, source.stat().st_size):
        digest = _sha256(source)
        if _sha256(target) == digest:
            return digest
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")  # one name, so that a killed run leaves one part at most
    written, done = hashlib.sha256(), 0
    try:
        with source.open("rb") as stream, part.open("wb") as copy:
            while piece := stream.read(_PIECE):
                copy.write(piece)
                written.update(piece)
                done += len(piece)
                on_bytes(done)
            copy.flush()
            os.fsync(copy.fileno())
        if _sha256(part) != written.hexdigest():
            raise OutputError(
                f"{target}: the disk gives back other bytes than were written to it; use another"
            )
        part.replace(target)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return written.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _readme(entries: dict[str, Any]) -> str:
    lines = [_README.format(variable=VARIABLE, contents=CONTENTS)]
    for name, entry in sorted(entries.items()):
        size = sum(file["bytes"] for file in entry["files"].values())
        lines.append(f"{name}: {size / 1e6:.1f} MB, {entry['licence']}\n  from {entry['source']}\n")
    return "\n".join(lines)
