"""What a training leaves to look at: its log, its sheets, its run card and the card of what it exports."""

import contextlib
import json
import math
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from facerestore.core.errors import OutputError
from facerestore.imaging.write import write_image
from facerestore.training.job import Job
from facerestore.weights.write import write_file

if TYPE_CHECKING:
    from facerestore.training.stream import Shown, Stream
    from facerestore.training.trainer import StepReport

_PACKAGES = ("facerestore", "torch", "diffusers", "transformers", "peft", "accelerate", "numpy", "pillow")
_SHEET_ROWS = 12


class Record:
    """Writes about one training into its folder; only the main process does.

    Args:
        folder: of the job.
        job: what is trained.
        stream: the faces, whose counts and licences go into the card.
        main: whether this process writes.
    """

    def __init__(self, folder: Path, job: Job, stream: "Stream", *, main: bool) -> None:
        self.folder = folder
        self.job = job
        self.stream = stream
        self.main = main
        self.best: dict[str, float] = {}
        self._board: Any = None
        self._log = folder / "log.jsonl"

    @property
    def best_step(self) -> int | None:
        """The step with the best validation so far."""
        return int(self.best["step"]) if self.best else None

    @contextlib.contextmanager
    def open(self, step: int) -> Generator[None]:
        """Begin, or go on after `step`: what the log says of later steps is dropped, they come again."""
        if self.main:
            _make_folder(self.folder)
            self._forget_after(step)
            self._write_run({"state": "running", "step": step})
            if find_spec("tensorboard") is not None:
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step + 1)
        try:
            yield
        finally:
            if self._board is not None:
                self._board.close()
                self._board = None

    def step(self, report: "StepReport") -> None:
        """Log a step, where it is one that is logged."""
        if not self.main or (report.step % self.job.log_every and report.step != report.max_steps):
            return
        self._append({"step": report.step, **report.losses})
        if self._board is not None:
            for name, value in report.losses.items():
                self._board.add_scalar(name, value, report.step)
            self._board.add_scalar("faces_per_second", report.faces_per_second, report.step)

    def validation(self, step: int, shown: "Shown", pred: Tensor) -> None:
        """Measure what came of the fixed faces, remember the best, and draw the sheet.

        Args:
            step: of the training.
            shown: the fixed faces.
            pred: (B,3,H,W) float32 in [0,1].
        """
        facts = {
            "psnr": float(psnr(pred, shown.hq).mean()),
            "psnr_lq": float(psnr(shown.lq, shown.hq).mean()),
        }
        self._append({"step": step, **{f"validation/{name}": value for name, value in facts.items()}})
        if self._board is not None:
            self._board.add_scalar("validation/psnr", facts["psnr"], step)
        if facts["psnr"] > self.best.get("psnr", -math.inf):
            self.best = {"step": step, "psnr": facts["psnr"]}
        rows = [torch.cat(list(row), dim=2) for row in zip(shown.lq, pred, shown.hq, strict=True)]
        sheet = self.folder / "sheets" / f"step-{step:08d}.png"
        _make_folder(sheet.parent)
        write_image(sheet, torch.cat(rows[:_SHEET_ROWS], dim=1)[None].clamp(0, 1))

    def finish(self, step: int, *, done: bool) -> None:
        """Say in the run card how it ended."""
        if self.main:
            self._write_run({"state": "done" if done else "stopped", "step": step})

    def card(self, folder: Path, files: Sequence[Path], step: int) -> Path:
        """Write the model card of what was exported.

        Returns:
            The file.
        """
        facts = self.facts() | {"step": step}
        notes = [self.job.notes, *(f"* {note}" for note in self.job.task.notes())]
        text = _CARD.format(
            job=self.job.name,
            step=step,
            files="\n".join(f"* `{path.relative_to(folder)}`" for path in files),
            weights="\n".join(f"* `{name}`" for name in self.job.task.weights()) or "* none",
            data=self.stream.describe(),
            best=f"{self.best['psnr']:.2f} dB at step {int(self.best['step'])}"
            if self.best
            else "not measured",
            notes="\n".join(notes).strip() or "None.",
            run=json.dumps(facts, indent=1, sort_keys=True),
        )
        path = folder / "README.md"
        write_file(path, text.encode())
        return path

    def facts(self) -> dict[str, Any]:
        """What a reader needs to make it again: settings, versions, the code's commit, the data."""
        return {
            "job": self.job.to_dict(),
            "fingerprint": self.job.fingerprint(),
            "versions": _versions(),
            "commit": _commit(),
            "data": self.stream.facts(),
            "notes": list(self.job.task.notes()),
            "best": self.best,
        }

    def _write_run(self, state: Mapping[str, Any]) -> None:
        content = self.facts() | {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())} | dict(state)
        write_file(self.folder / "run.json", json.dumps(content, indent=1, sort_keys=True).encode())

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            with self._log.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputError(f"{self._log} cannot be written: {error}") from error

    def _forget_after(self, step: int) -> None:
        if not self._log.is_file():
            return
        kept = [line for line in self._log.read_text().splitlines() if _step_of(line) <= step]
        write_file(self._log, "".join(f"{line}\n" for line in kept).encode())


def psnr(pred: Tensor, hq: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of pictures (B,3,H,W) in [0,1]: (B,) dB, at most 100."""
    return -10 * (pred - hq).square().flatten(1).mean(1).clamp_min(1e-10).log10()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return math.inf  # a line that a kill cut short


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error}; choose another output_dir") from error


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for name in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _commit() -> str | None:
    """The commit of the package's own checkout, where it is one."""
    here = Path(__file__).parent
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        run = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
        return run.stdout.strip() or None
    return None


_CARD = """# {job}, step {step}

An adapter or network trained with facerestore. Detail that it restores is invented: it is no evidence of who
somebody is.

## Files

{files}

## Belongs to

{weights}

## Trained on

{data}

Validation: {best} PSNR on the fixed faces.

## Notes

{notes}

## Run

```json
{run}
```
"""
