"""Restore a set of aligned faces for its evaluation: in batches, resumable, each process its share."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from facerestore.core.errors import ConfigError, FaceRestoreError
from facerestore.evaluation.processes import Processes
from facerestore.evaluation.rows import append_line, file_sha256, json_lines
from facerestore.imaging.read import read_image
from facerestore.imaging.tree import pictures_below
from facerestore.imaging.write import write_image
from facerestore.pipeline import FACE_PX, Pipeline, RestorationOptions

_AT_ONCE = 8


def restore_set(
    pipe: Pipeline,
    lq: Path,
    folder: Path,
    processes: Processes,
    *,
    seed: int = 0,
    strength: float = 1.0,
    on_start: Callable[[int], None] = lambda count: None,
    on_picture: Callable[[str, str], None] = lambda key, error: None,
) -> dict[str, Any]:
    """Restore every aligned face below a folder into the same tree, as 8-bit PNG.

    What an earlier run restored from the same picture with the same recipe, weights and seed, and is still
    intact, is not restored again. A picture that cannot be read, or is not 512 x 512 px, is reported and left
    out; the evaluation then names it as missing.

    Args:
        pipe: restores.
        lq: folder of the faces.
        folder: of the results; made.
        processes: of which this one takes its share.
        seed: of every random draw.
        strength: as for `Pipeline.restore`.
        on_start: called with the number of pictures.
        on_picture: called after each with its path below the folder, and an error or the empty text.

    Returns:
        What made the pictures.

    Raises:
        ConfigError: if there is no picture.
        OutputError: if one cannot be written.
    """
    run = dict(pipe.provenance(seed, RestorationOptions(strength=strength, aligned=True)))
    made_by = hashlib.sha256(json.dumps(run, sort_keys=True, default=str).encode()).hexdigest()[:16]
    if not lq.is_dir() or not (places := pictures_below(lq)):
        raise ConfigError(f"{lq}: there is no picture in it")
    folder.mkdir(parents=True, exist_ok=True)
    done = {
        (line["output"], line["lq"]): line["sha256"]
        for line in json_lines(folder.parent, "restored-*.jsonl")
        if line.get("run") == made_by
    }
    share = places[processes.rank :: processes.count]
    todo: list[tuple[Path, PurePosixPath, str]] = []
    for path, place in share:
        output, sha256 = place.with_suffix(".png"), file_sha256(path)
        known = done.get((str(output), sha256))
        if not known or known != file_sha256(folder / output):
            todo.append((path, output, sha256))
    on_start(len(todo))
    record = folder.parent / f"restored-{processes.rank}.jsonl"
    for chunk in _read(todo, on_picture):
        restored = pipe.restore_aligned(torch.cat([face for *_, face in chunk]), seed=seed, strength=strength)
        for (output, sha256, _), image in zip(chunk, restored, strict=True):
            target = folder / output
            target.parent.mkdir(parents=True, exist_ok=True)
            write_image(target, image[None])
            line = {"run": made_by, "output": str(output), "lq": sha256, "sha256": file_sha256(target)}
            append_line(record, line)
            on_picture(str(output), "")
    return run


def _read(
    todo: Sequence[tuple[Path, PurePosixPath, str]], on_picture: Callable[[str, str], None]
) -> Iterator[list[tuple[PurePosixPath, str, torch.Tensor]]]:
    """Faces in chunks; what is none is reported."""
    chunk: list[tuple[PurePosixPath, str, torch.Tensor]] = []
    for path, output, sha256 in todo:
        try:
            face = read_image(path).srgb()
        except FaceRestoreError as error:
            on_picture(str(output), str(error))
            continue
        if face.shape[2:] != (FACE_PX, FACE_PX):
            size = f"{face.shape[3]} x {face.shape[2]}"
            on_picture(str(output), f"{path}: is {size} px, an aligned face is {FACE_PX} x {FACE_PX}")
            continue
        chunk.append((output, sha256, face))
        if len(chunk) == _AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
