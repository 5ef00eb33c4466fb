"""Checkpoints: written whole or not at all, read without running what is in them, and never half believed.

A checkpoint is a folder of safetensors and one JSON file with the size and sha256 of each. It is filled under
another name and renamed when everything lies on the disk.
"""

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facerestore.core.errors import OutputError, ResumeMismatch, WeightsError
from facerestore.weights.hashes import sha256_of
from facerestore.weights.load import read_tensors
from facerestore.weights.write import write_file, write_tensors

_STATE = "state.json"
_UNFINISHED = ".unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a training needs to go on as if it had never stopped.

    Attributes:
        step: steps that were done.
        tensors: by group (`weights`, `average`, `optimizer`), by name.
        facts: JSON-ready: the job, the validation so far.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    facts: Mapping[str, Any]


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write `folder/step-00001200`; one of this name is replaced.

    Raises:
        OutputError: if it cannot be written, as on a full disk; what lay there before is untouched.
    """
    final = folder / f"step-{checkpoint.step:08d}"
    unfinished = final.with_name(final.name + _UNFINISHED)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        files: dict[str, dict[str, Any]] = {}
        for group, tensors in checkpoint.tensors.items():
            path = unfinished / f"{group}.safetensors"
            write_tensors(path, tensors, {"step": str(checkpoint.step)})
            files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        state = {"step": checkpoint.step, "files": files, **checkpoint.facts}
        write_file(unfinished / _STATE, json.dumps(state, indent=1, sort_keys=True).encode())
        if final.exists():
            shutil.rmtree(final)
        unfinished.replace(final)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{final} cannot be written: {error}; earlier checkpoints are untouched") from error
    return final


def _sync(folder: Path) -> None:
    """Bring the renaming to the disk, where folders can be opened for it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def saved(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    found = [path for path in folder.glob("step-*") if path.is_dir() and path.name[5:].isdigit()]
    return sorted(found, reverse=True)


def read(path: Path) -> Checkpoint:
    """Read one and check every file against its size and hash.

    Raises:
        WeightsError: if something is missing or damaged.
    """
    try:
        state = json.loads((path / _STATE).read_text())
        files: dict[str, dict[str, Any]] = state.pop("files")
        step: int = state.pop("step")
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is no whole checkpoint: {error}") from error
    tensors: dict[str, Mapping[str, Tensor]] = {}
    for name, facts in files.items():
        file = path / name
        if not file.is_file() or file.stat().st_size != facts["bytes"] or sha256_of(file) != facts["sha256"]:
            raise WeightsError(f"{file} is damaged, or not whole")
        tensors[name.removesuffix(".safetensors")] = read_tensors(file)
    return Checkpoint(step=step, tensors=tensors, facts=state)


def newest(folder: Path) -> Checkpoint | None:
    """The newest whole checkpoint; a damaged one is passed over, and a warning says so.

    Returns:
        None where there is none at all.

    Raises:
        WeightsError: if there are some, and all are damaged.
    """
    damaged: list[str] = []
    for path in saved(folder):
        try:
            found = read(path)
        except WeightsError as error:
            damaged.append(str(error))
            continue
        if damaged:
            warnings.warn(
                f"{'; '.join(damaged)}: training goes on from {path.name} instead",
                RuntimeWarning,
                stacklevel=2,
            )
        return found
    if damaged:
        raise WeightsError(
            f"no checkpoint in {folder} is whole: {'; '.join(damaged)}. Start in another folder"
        )
    return None


def prune(folder: Path, keep: int, spare: Iterable[str]) -> None:
    """Delete all but the newest `keep` checkpoints and those in `spare`, and what was never finished."""
    for path in folder.glob(f"*{_UNFINISHED}"):
        shutil.rmtree(path, ignore_errors=True)
    kept = set(spare)
    for path in saved(folder)[keep:]:
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


def require_same(
    folder: Path, saved_job: Mapping[str, Any], job: Mapping[str, Any], may_differ: Iterable[str]
) -> None:
    """Refuse to go on with a job that is not the one that was begun.

    Args:
        folder: of the training, for the message.
        saved_job: as it lies in the checkpoint.
        job: as it is asked for.
        may_differ: fields that do not change what is computed.

    Raises:
        ResumeMismatch: names every field that differs, with both values.
    """
    ignored = set(may_differ)
    before, now = (
        {key: value for key, value in _flat(one) if key.split(".")[0] not in ignored}
        for one in (saved_job, job)
    )
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    if differing:
        raise ResumeMismatch(folder, {key: (before.get(key), now.get(key)) for key in differing})


def _flat(value: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        items: Iterable[tuple[str, Any]] = value.items()
    elif isinstance(value, list | tuple):
        items = ((str(index), item) for index, item in enumerate(value))
    else:
        yield path, value
        return
    for key, item in items:
        yield from _flat(item, f"{path}.{key}" if path else key)


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Iterable[str]) -> dict[str, Tensor]:
    """What an optimiser remembers, as `name/fact` tensors.

    Args:
        optimizer: with one group of parameters.
        names: of its parameters, in order.
    """
    parameters = optimizer.param_groups[0]["params"]
    return {
        f"{name}/{fact}": value if isinstance(value, Tensor) else torch.tensor(value)
        for name, parameter in zip(names, parameters, strict=True)
        for fact, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, names: Iterable[str], tensors: Mapping[str, Tensor]
) -> None:
    """Let an optimiser remember what `optimizer_tensors` wrote, on the devices of its parameters."""
    parameters = optimizer.param_groups[0]["params"]
    for name, parameter in zip(names, parameters, strict=True):
        own = {key.rpartition("/")[2]: value for key, value in tensors.items() if key.startswith(f"{name}/")}
        if own:
            optimizer.state[parameter] = {
                fact: value.clone() if fact == "step" else value.to(parameter.device).clone()
                for fact, value in own.items()
            }
