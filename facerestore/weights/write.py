"""Writes safetensors files: whole or not at all, and the same bytes for the same tensors."""

import contextlib
import json
import os
import secrets
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from facerestore.core.errors import OutputError


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors with what is to be said about them, without a date.

    Args:
        path: the file; a file of this name is replaced once the new one is complete.
        tensors: by key, in the dtype that is to be stored.
        metadata: text by name.

    Raises:
        OutputError: if it cannot be written.
    """
    with _whole(path) as temporary:
        save_file(_owned(tensors), temporary, metadata={"format": "pt", **metadata})
        with temporary.open("r+b") as stream:
            _order_header(stream)
            _to_disk(stream)


def write_file(path: Path, content: bytes) -> None:
    """Write a file that stands beside weights, such as its settings; one of this name is replaced.

    Raises:
        OutputError: if it cannot be written.
    """
    with _whole(path) as temporary, temporary.open("wb") as stream:
        stream.write(content)
        _to_disk(stream)


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A name beside `path` that becomes `path` if all goes well, and is gone if not."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except (OSError, SafetensorError, KeyError) as error:  # the last names a dtype that the format lacks
        raise OutputError(f"{path} cannot be written: {error}") from error
    finally:
        with contextlib.suppress(OSError):  # what went wrong is being reported
            temporary.unlink()


def _to_disk(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _owned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors that share no memory, which safetensors asks for."""
    owned: dict[str, Tensor] = {}
    taken: set[int] = set()
    for key, tensor in tensors.items():
        value = tensor.detach().contiguous()
        storage = value.untyped_storage()
        if storage.nbytes() != value.nbytes or storage.data_ptr() in taken:
            value = value.clone()
        taken.add(value.untyped_storage().data_ptr())
        owned[key] = value
    return owned


def _order_header(stream: BinaryIO) -> None:
    """Put the metadata of a safetensors file in order: the library writes it in a random one."""
    (length,) = struct.unpack("<Q", stream.read(8))
    header = json.loads(stream.read(length))
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    stream.seek(8)
    stream.write(text.ljust(length))
