"""Copies of users' pickles in the cache: unpickled once, with care, and from then on mapped."""

import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open

from facerestore.core.errors import OutputError
from facerestore.weights.convert import SOURCE_SHA256, read_part, write_checkpoint
from facerestore.weights.load import is_safetensors
from facerestore.weights.write import write_file

logger = logging.getLogger(__name__)

_CONFIG = "config.json"
_TENSORS = "diffusion_pytorch_model"
_PICKLES = (f"{_TENSORS}.bin", "adapter_model.bin")


def is_pickled(source: Path) -> bool:
    """Whether reading a file, or a folder of diffusers or PEFT, means to unpickle something.

    Raises:
        WeightsError: if it cannot be read.
    """
    if not source.is_dir():
        return not is_safetensors(source)
    has_safetensors = any(file.suffix == ".safetensors" for file in source.iterdir())
    return not has_safetensors and any((source / name).is_file() for name in _PICKLES)


def mapped_copy(source: Path, *, take: str, sha256: str, folder: Path) -> Path | None:
    """The copy of what is pickled, which is made if there is none yet, whole or not at all.

    Args:
        source: a file, or a folder of PEFT: both become one file; or a folder of diffusers, which stays one.
        take: a dotted name: only what lies below it, where anything does.
        sha256: of the source; a copy is of exactly these bytes.
        folder: of copies.

    Returns:
        The copy; None if it cannot be written, which is logged: then the source is to be read itself.

    Raises:
        WeightsError: if the source is damaged, would run code (it is not run), or has no tensors.
    """
    name = f"{sha256}-{take}" if take else sha256
    is_component = (source / _PICKLES[0]).is_file()
    copy = folder / (name if is_component else f"{name}.safetensors")
    file = copy / f"{_TENSORS}.safetensors" if is_component else copy
    if _is_copy(file, sha256) and (not is_component or (copy / _CONFIG).is_file()):
        return copy
    checkpoint = read_part(source / _PICKLES[0] if is_component else source, take)
    try:
        write_checkpoint(file, checkpoint, {SOURCE_SHA256: sha256})
        if is_component:  # last, because it is what makes a folder count
            write_file(copy / _CONFIG, (source / _CONFIG).read_bytes())
    except OutputError as error:
        logger.warning("%s has to be unpickled at each start: %s", source, error)
        return None
    logger.info("%s was converted once and for all into %s", source, copy)
    return copy


def _is_copy(file: Path, sha256: str) -> bool:
    """Whether it is complete and of these bytes, by its header."""
    try:
        with safe_open(file, "pt") as opened:
            return (opened.metadata() or {}).get(SOURCE_SHA256) == sha256
    except (OSError, SafetensorError):
        return False
