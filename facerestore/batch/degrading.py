"""Degrade many pictures into a folder: resumable, whole or not at all, with what was drawn for each."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from facerestore import __version__
from facerestore.batch.inputs import Item, plan
from facerestore.batch.manifest import Manifest, digest
from facerestore.batch.runner import is_fatal, reason, staging_folder
from facerestore.core.errors import FaceRestoreError, OutputError
from facerestore.degradations import Preset, apply, draw
from facerestore.imaging.read import DEFAULT_MAX_PIXELS, read_image
from facerestore.imaging.write import write_image


@dataclass(frozen=True, slots=True, kw_only=True)
class DegradedItem:
    """What became of one picture.

    Attributes:
        item: the picture.
        row: its line in the manifest: as after restoring, but with `drawn` (the numbers) in place of faces.
        earlier: whether an earlier run did it.
    """

    item: Item
    row: Mapping[str, Any]
    earlier: bool = False


def picture_seed(seed: int, place: str) -> int:
    """The seed of one picture: it follows from its name, not from which others are degraded with it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{place}".encode(errors="surrogateescape")).digest()[:4])


def degrade_folder(
    inputs: Iterable[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str],
    preset: Preset,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    on_start: Callable[[int], None] = lambda count: None,
    on_item: Callable[[DegradedItem], None] = lambda done: None,
) -> None:
    """Degrade every picture that `inputs` name (see `plan`) into a PNG below `output_dir`.

    The same picture under the same name, preset and seed gives the same bytes. `manifest.jsonl` beside the
    results says what was drawn for each; what it says is done, from the same input, preset and seed, and is
    still intact, is not done again. A picture that cannot be read, or is too small, is reported and the
    others are done. A file that no run wrote is not replaced.

    Args:
        inputs: files, folders and patterns.
        output_dir: made if it is not there.
        preset: of `facerestore.degradations`.
        seed: any integer; each picture gets one of its own from it and from its name.
        device: where it is computed.
        max_pixels: as in `read_image`.
        on_start: called with the number of pictures before the first.
        on_item: called after each picture.

    Raises:
        ConfigError: if there is no picture at all, or an output would replace an input.
        OutputError: if the folder cannot be written, another run holds it, or the disk is full.
    """
    folder = Path(output_dir)
    run = {
        "degradation": preset.to_dict(),
        "seed": seed,
        "versions": {"facerestore": __version__, "torch": torch.__version__},
    }
    with staging_folder(folder) as staging, Manifest(folder) as manifest:
        items = plan(inputs, folder, "png", earlier_outputs=manifest.outputs)
        on_start(len(items))
        for item in items:
            output = str(item.output)
            if manifest.is_done(output, item.source, run, keeps_faceless=True):
                on_item(DegradedItem(item=item, row=manifest.row(output), earlier=True))
                continue
            staged = staging / "picture.png"
            try:
                target = folder / item.output
                if os.path.lexists(target) and not manifest.is_ours(output):
                    raise OutputError(f"{target} is there already, and no run wrote it; use another folder")
                drawn = draw(preset, [picture_seed(seed, str(item.place))])
                hq = read_image(item.source, max_pixels=max_pixels).srgb()
                write_image(staged, apply(hq.to(device), preset, drawn).cpu())
                row = _row(item, run) | _written(staged) | {"drawn": drawn[0].to_dict()}
                target.parent.mkdir(parents=True, exist_ok=True)
                manifest.append(
                    row
                )  # before the file takes its name, which then is ours even if we are killed
                staged.replace(target)
            except (FaceRestoreError, OSError) as error:
                if is_fatal(error):
                    raise OutputError(f"{folder}: {reason(error)}; what is done stays done") from error
                row = _row(item, run) | {"error": str(error), "error_kind": type(error).__name__}
                manifest.append(row)
            on_item(DegradedItem(item=item, row=row))


def _written(staged: Path) -> dict[str, Any]:
    sha256, size = digest(staged)
    return {"status": "degraded", "output_sha256": sha256, "output_bytes": size}


def _row(item: Item, run: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the manifest of a picture that failed."""
    sha256, size = None, None
    with suppress(OSError):
        sha256, size = digest(item.source)
    return {
        "source": str(item.source),
        "input_sha256": sha256,
        "input_bytes": size,
        "output": str(item.output),
        "output_sha256": None,
        "output_bytes": None,
        "status": "failed",
        "drawn": None,
        "error": None,
        "error_kind": None,
        "run": dict(run),
    }
