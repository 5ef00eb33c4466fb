"""Turns the checkpoints that authors publish into safetensors files, without running what a pickle says.

Reads safetensors, PEFT folders, and pickles of every common kind: plain state dicts, BasicSR (`params`,
`params_ema`), Lightning (`state_dict`), OSEDiff's kin, which keep several state dicts in one file, and single
tensors, which are called as their file is.
Scales of adapters, which PEFT and diffusers keep beside the tensors, become scalar tensors `LAYER.alpha`.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from facerestore.core.errors import ConfigError, OutputError, WeightsError
from facerestore.weights.hashes import sha256_of
from facerestore.weights.load import WRAPPERS, is_safetensors, read_pickle, read_tensors, require_alike
from facerestore.weights.spec import PEFT_CONFIG
from facerestore.weights.write import write_tensors

_PEFT_PREFIX = "base_model.model."
_PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_DIFFUSERS_CONFIG = "lora_adapter_metadata"
_PIECE = "state_dict_"  # OSEDiff keeps `state_dict_unet` beside `state_dict_vae`
_PIECES = {"vae_time": "vae"}  # TADSR: the time layers of the same network
SOURCE_SHA256 = "source_sha256"
"""What a converted file calls the sha256 of the file that it was made from."""
_OWN = frozenset({"format", "source", SOURCE_SHA256, "taken", "dropped", _DIFFUSERS_CONFIG})


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds that a network can use.

    Attributes:
        tensors: by key.
        metadata: numbers and words that stood beside them, as text.
        left_out: names of everything else, not read.
        file: the file that holds the tensors.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    left_out: tuple[str, ...]
    file: Path


def read_checkpoint(source: str | Path, *, take: str = "") -> Checkpoint:
    """Read a published checkpoint whole.

    Args:
        source: a file, or a PEFT folder.
        take: a dotted name: only what lies below it, called without it.

    Raises:
        WeightsNotFound: if there is no such file.
        WeightsError: if it is damaged, is a pickle that would run code (it is not run), or has no tensors.
    """
    path = Path(source)
    if path.is_dir():
        return _taken(_read_peft(path), take)
    if is_safetensors(path):
        return _taken(_read_safetensors(path), take)
    try:
        return _read_pickled(path, take)
    except RecursionError as error:
        raise WeightsError(f"{path} holds itself, or what it holds is nested beyond any use") from error


def convert(
    source: str | Path,
    out: str | Path,
    *,
    take: str = "",
    drop: Sequence[str] = (),
    like: Mapping[str, Tensor] | None = None,
) -> Checkpoint:
    """Write a checkpoint as a safetensors file that says what it was made from.

    Args:
        source: a file, or a PEFT folder.
        out: the file to write, which must not be there yet.
        take: a dotted name: only what lies below it, called without it.
        drop: dotted names, after `take`: what lies below them is not written.
        like: tensors whose keys and shapes the result must have, all of them and no others.

    Returns:
        What was written.

    Raises:
        ConfigError: if `out` is no `.safetensors`.
        KeyMismatch: if the result is not like `like`; then nothing is written.
        OutputError: if `out` exists or cannot be written.
        WeightsError: if the source cannot be read, or nothing lies below `take` or one of `drop`.
    """
    out = Path(out)
    if out.suffix != ".safetensors":
        raise ConfigError(f"{out} should end in .safetensors, which is what is written")
    if out.exists():
        raise OutputError(f"{out} is there already; remove it or name another file")
    checkpoint = read_checkpoint(source, take=take)
    tensors = dict(checkpoint.tensors)
    for name in drop:
        below = [key for key in tensors if _is_below(key, name)]
        if not below:
            raise WeightsError(f"{source}: nothing is called {name!r} or lies below it; {_overview(tensors)}")
        for key in below:
            del tensors[key]
    if like is not None:
        require_alike(tensors, like, str(source))
    made_from = {"source": Path(source).name, SOURCE_SHA256: sha256_of(checkpoint.file)}
    made_from |= ({"taken": take} if take else {}) | ({"dropped": " ".join(drop)} if drop else {})
    return write_checkpoint(out, replace(checkpoint, tensors=tensors), made_from)


def write_checkpoint(out: Path, checkpoint: Checkpoint, made_from: dict[str, str]) -> Checkpoint:
    """Write it as safetensors, with the numbers and words that stood beside it and what it was made from.

    Returns:
        What was written.

    Raises:
        OutputError: if it cannot be written.
    """
    kept = {key: value for key, value in checkpoint.metadata.items() if key not in _OWN}
    made = replace(checkpoint, metadata=kept | made_from, file=out)
    write_tensors(out, made.tensors, made.metadata)
    return made


def read_part(source: str | Path, part: str) -> Checkpoint:
    """Read what lies below a dotted name where anything does, and else everything.

    So a checkpoint of an author's, and what was once taken out of it, are the same weight.

    Raises:
        WeightsNotFound: if there is no such file.
        WeightsError: if it cannot be read; see `read_checkpoint`.
    """
    whole = read_checkpoint(source)
    has_it = part and any(key.startswith(f"{part}.") for key in whole.tensors)
    return _taken(whole, part) if has_it else whole


def _read_pickled(path: Path, take: str) -> Checkpoint:
    read = read_pickle(path)
    content: Any = {path.stem: read} if isinstance(read, Tensor) else read
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds {type(content).__name__}, no tensors by name")
    metadata = {
        str(key): str(value)
        for key, value in content.items()
        if isinstance(value, int | float | str) and _is_text(f"{key}{value}")
    }
    first, _, below = take.partition(".")
    wanted = (first,) if first in WRAPPERS else WRAPPERS
    wrapper = next((name for name in wanted if isinstance(content.get(name), Mapping)), None)
    left_out: list[str] = []
    if wrapper is not None:
        left_out = [str(key) for key in content if key != wrapper and str(key) not in metadata]
        content = content[wrapper]
        take = below if first == wrapper else take
    tensors: dict[str, Tensor] = {}
    for key, value in _leaves(content):
        if not isinstance(value, Tensor):
            left_out += [] if key in metadata else [key]
        elif key in tensors:
            raise WeightsError(f"{path} has {key} twice; take one part of it")
        elif value.layout != torch.strided or value.is_meta or not _is_text(key):
            raise WeightsError(f"{path}: {key!r} is no dense tensor with a readable name, so no network's")
        else:
            tensors[key] = value
    return _taken(Checkpoint(tensors, metadata, tuple(left_out), path), take)


def _read_safetensors(path: Path) -> Checkpoint:
    tensors, metadata = read_tensors(path), _header(path)
    if _DIFFUSERS_CONFIG in metadata:
        settings = _json(metadata[_DIFFUSERS_CONFIG], path)
        for component in {key.partition(".")[0] for key in settings}:
            start = f"{component}."
            own = {key.removeprefix(start): v for key, v in settings.items() if key.startswith(start)}
            tensors |= _alphas(tensors, own, path, start)
    return Checkpoint(tensors, metadata, (), path)


def _read_peft(folder: Path) -> Checkpoint:
    file = next((folder / name for name in _PEFT_FILES if (folder / name).is_file()), None)
    config = folder / PEFT_CONFIG
    if file is None or not config.is_file():
        raise WeightsError(f"{folder} is no PEFT folder: that has {PEFT_CONFIG} and one of {_PEFT_FILES}")
    settings = _json(config.read_text(encoding="utf-8"), config)
    tensors = read_tensors(file)
    alphas = _alphas(tensors, settings, config, _PEFT_PREFIX)
    return Checkpoint(tensors | alphas, _header(file) if is_safetensors(file) else {}, (), file)


def _header(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as opened:
        return dict(opened.metadata() or {})


def _alphas(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any], source: Path, prefix: str
) -> dict[str, Tensor]:
    """The alpha of each layer below `prefix` as peft computes it.

    Raises:
        WeightsError: if there is none, or the rank that the settings say is not that of the tensors.
    """
    alphas: dict[str, Tensor] = {}
    for key, down in tensors.items():
        module = key.removesuffix(".lora_A.weight").removesuffix(".lora.down.weight")
        if module == key or not key.startswith(prefix) or f"{module}.alpha" in tensors:
            continue
        name = module.removeprefix(prefix)
        alpha = _setting(settings, "lora_alpha", "alpha_pattern", name, source)
        rank = _setting(settings, "r", "rank_pattern", name, source)
        if alpha is None:
            raise WeightsError(f"{source} does not say lora_alpha, without which {module} has no scale")
        if rank is not None and down.shape[:1] != (rank,):
            raise WeightsError(
                f"{source} says rank {rank:g}, but {key} has shape {tuple(down.shape)}: they are of two "
                "adapters. Download both again"
            )
        stabilised = math.sqrt(down.shape[0]) if settings.get("use_rslora") else 1.0
        alphas[f"{module}.alpha"] = torch.tensor(alpha * stabilised, dtype=torch.float32)
    return alphas


def _setting(
    settings: Mapping[str, Any], name: str, exceptions: str, module: str, source: Path
) -> float | None:
    """A number of a layer: one for all, others where a pattern fits its name; None if nothing is said."""
    value = settings.get(name)
    try:
        for pattern, other in dict(settings.get(exceptions) or {}).items():
            if re.fullmatch(rf"(.*\.)?({pattern})", module):
                value = other
                break
    except (TypeError, ValueError, re.error, RecursionError) as error:
        raise WeightsError(f"{source}: {exceptions} is no list of patterns ({error}); replace it") from error
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WeightsError(f"{source}: {name} of {module} is {value!r}, no number; replace it")
    return value


def _json(text: str, source: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{source} holds settings that are no JSON ({error}); replace it") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{source} holds settings that are no JSON object; replace it")
    return content


def _leaves(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in nested mappings, by dotted name."""
    for key, value in content.items():
        name = str(key)
        if name.startswith(_PIECE) and isinstance(value, Mapping):
            name = name.removeprefix(_PIECE)
            name = _PIECES.get(name, name)
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _taken(checkpoint: Checkpoint, take: str) -> Checkpoint:
    tensors = checkpoint.tensors
    if take:
        start = f"{take.removesuffix('.')}."
        tensors = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
    if not tensors:
        below = f" below {take!r}" if take else ""
        raise WeightsError(f"{checkpoint.file} has no tensors{below}; {_overview(checkpoint.tensors)}")
    return Checkpoint(tensors, checkpoint.metadata, checkpoint.left_out, checkpoint.file)


def _is_text(name: str) -> bool:
    """Whether it can be written down: pickles can hold halves of characters."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _is_below(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name.removesuffix('.')}.")


def _overview(tensors: Mapping[str, Tensor]) -> str:
    heads = sorted({key.partition(".")[0] for key in tensors})
    return (
        f"it has {', '.join(heads[:8])}{', ...' if len(heads) > 8 else ''}" if heads else "it has none at all"
    )
