"""Reads tensors from files and puts them into networks; the only place that opens a pickle, and it runs none.

Quantised tensors in safetensors: a uint8 tensor `KEY` and beside it float64 `KEY.scale_min` of shape (2,).
The value is float32(KEY * scale + min), computed in float64 and rounded once, as TensorFlow.js does it.
"""

import pickle
import struct
import threading
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from facerestore.core.errors import KeyMismatch, WeightsError, WeightsNotFound
from facerestore.weights.leftovers import stand_ins

SCALE_MIN = ".scale_min"
Change = Callable[[str, Tensor], Tensor]
WRAPPERS = ("params_ema", "params", "state_dict")
"""What a checkpoint may keep its tensors under: BasicSR writes the first two, Lightning the third."""
# What torch.load raises, depending on which byte of a file is wrong; found by changing bytes at random.
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    SafetensorError,
    struct.error,
    zipfile.BadZipFile,
)
_answering = threading.Lock()  # torch keeps the names that it may answer in one place for all threads


def read_tensors(
    path: str | Path, *, dtype: torch.dtype | None = None, change: Change | None = None
) -> dict[str, Tensor]:
    """Read a safetensors file or a pickled state dict, on the CPU, memory-mapped where the format allows.

    Args:
        path: the file; its content decides how it is read, not its name.
        dtype: what tensors of floats are converted to, one after the other; None leaves them as stored.
        change: makes of a key and its tensor, as stored, the tensor that is converted and kept.

    Returns:
        Tensors by key; quantised ones as float32.

    Raises:
        WeightsNotFound: if there is no such file.
        WeightsError: if it is damaged, holds no tensors, or is a pickle that would run code (it is not run).
    """
    path = Path(path)
    if is_safetensors(path):
        try:
            plain = dtype is None and change is None
            return _dequantised(load_file(path) if plain else _converted(path, dtype, change), path)
        except SafetensorError as error:
            raise WeightsError(f"{path} is a damaged safetensors file ({error}); replace it") from error
    tensors = _tensors_of(read_pickle(path), path)
    return {key: _changed(key, tensor, dtype, change) for key, tensor in tensors.items()}


def is_safetensors(path: Path) -> bool:
    """Whether a file says in its first bytes that it is safetensors.

    Raises:
        WeightsNotFound: if there is no such file.
        WeightsError: if it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return stream.read(9)[8:] == b"{"
    except FileNotFoundError as error:
        raise WeightsNotFound(f"{path} is no file; correct the path") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


def load_into(net: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy every tensor of `state` into `net`, whose dtypes and devices stay as they are.

    Args:
        net: the network.
        state: one tensor for each key of `net.state_dict()`, of the same shape.
        source: where the tensors come from, for the message.

    Raises:
        KeyMismatch: if keys or shapes differ; then nothing was loaded.
    """
    check_keys(net, state, source)
    net.load_state_dict(state)


def check_keys(net: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that are not exactly those of `net`, by name and shape.

    Raises:
        KeyMismatch: if keys or shapes differ.
    """
    require_alike(state, net.state_dict(), source)


def require_alike(state: Mapping[str, Tensor], like: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that have not exactly the names and shapes of `like`.

    Raises:
        KeyMismatch: if keys or shapes differ.
    """
    missing = [key for key in like if key not in state]
    unexpected = [key for key in state if key not in like]
    misshapen = [
        f"{key}: expected {tuple(like[key].shape)}, got {tuple(state[key].shape)}"
        for key in like
        if key in state and like[key].shape != state[key].shape
    ]
    if missing or unexpected or misshapen:
        raise KeyMismatch(source, missing, unexpected, misshapen)


def _converted(path: Path, dtype: torch.dtype | None, change: Change | None) -> dict[str, Tensor]:
    """Every tensor is mapped on its own, so that the file never lies in memory beside what it becomes."""

    def read(key: str) -> Tensor:
        with safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(key)
        return tensor if key.endswith(SCALE_MIN) else _changed(key, tensor, dtype, change)

    with safe_open(path, framework="pt") as file:
        keys = list(file.keys())
    return {key: read(key) for key in keys}


def _changed(key: str, tensor: Tensor, dtype: torch.dtype | None, change: Change | None) -> Tensor:
    made = tensor if change is None else change(key, tensor)
    return made.to(dtype or tensor.dtype) if tensor.is_floating_point() else made


def _dequantised(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    plain: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if key.endswith(SCALE_MIN) and key.removesuffix(SCALE_MIN) in tensors:
            continue
        scale_min = tensors.get(key + SCALE_MIN)
        if scale_min is None:
            plain[key] = tensor
            continue
        if tensor.dtype != torch.uint8 or scale_min.shape != (2,):
            raise WeightsError(f"{path}: {key} is not quantised as expected: uint8, two numbers beside it")
        scale, minimum = scale_min.tolist()
        levels = torch.arange(256, dtype=torch.float64) * scale + minimum
        plain[key] = levels.float()[tensor.int()]
    return plain


def read_pickle(path: Path) -> Any:
    """What was pickled, without running any of it: tensors, in plain containers, with numbers and text.

    Settings of training frameworks come back as empty stand-ins (see `facerestore.weights.leftovers`).

    Raises:
        WeightsError: if the file is damaged, or a pickle that would run code (it is not run).
    """
    try:
        with _answering, torch.serialization.safe_globals(stand_ins(path)):
            # Only zip archives can be mapped; what torch wrote before 1.6 is read whole.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"{path} is refused, nothing of it was executed: it is no safetensors file, and as a pickle it "
            f"holds more than tensors ({reason}). Convert it to safetensors where you trust it"
        ) from error
    except _DAMAGE as error:
        reason = f"{type(error).__name__}: {error}"
        raise WeightsError(f"{path} is neither safetensors nor a pickled state dict ({reason})") from error


def _tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for wrapper in WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                content = content[wrapper]
                break
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds no tensors by name")
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        raise WeightsError(f"{path} holds other things than tensors by name; give the state dict alone")
    return dict(cast("Mapping[str, Tensor]", content))


def read_arrays(path: Path) -> Any:
    """As `read_pickle`, for what holds arrays of NumPy beside tensors: statistics, not networks.

    Raises:
        WeightsError: if the file is damaged, or a pickle that would run code (it is not run).
    """
    import numpy as np

    kinds = [
        (type(np.dtype(kind)), f"numpy.dtypes.{type(np.dtype(kind)).__name__}") for kind in ("f4", "f8", "i8")
    ]
    # How arrays and numbers say that they are made; NumPy moved the two between versions.
    array: Any = np.zeros(0).__reduce__()[0]
    number: Any = np.float64(0).__reduce__()[0]
    modules = [f"numpy.{core}.multiarray" for core in ("core", "_core")]
    rebuild = [(array, f"{name}._reconstruct") for name in modules]
    numbers = [(number, f"{name}.scalar") for name in modules]
    try:
        with torch.serialization.safe_globals([*kinds, *rebuild, *numbers, np.ndarray, np.dtype]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(f"{path} is refused, nothing of it was executed ({reason})") from error
    except _DAMAGE as error:
        raise WeightsError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
