"""Reads tensors from files and puts them into networks; the only place that opens a pickle, and it runs none.

Quantised tensors in safetensors: a uint8 tensor `KEY` and beside it float64 `KEY.scale_min` of shape (2,).
The value is float32(KEY * scale + min), computed in float64 and rounded once, as TensorFlow.js does it.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from facerestore.core.errors import KeyMismatch, WeightsError, WeightsNotFound

SCALE_MIN = ".scale_min"
_WRAPPERS = ("params_ema", "params", "state_dict")  # BasicSR writes the first two, Lightning the third


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read a safetensors file or a pickled state dict, on the CPU, memory-mapped where the format allows.

    Args:
        path: the file; its content decides how it is read, not its name.

    Returns:
        Tensors by key, quantised ones as float32, everything else as stored.

    Raises:
        WeightsNotFound: if there is no such file.
        WeightsError: if it is damaged, holds no tensors, or is a pickle that would run code (it is not run).
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(9)
    except FileNotFoundError as error:
        raise WeightsNotFound(f"{path} is no file; correct the path") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    if head[8:] == b"{":
        try:
            return _dequantised(load_file(path), path)
        except SafetensorError as error:
            raise WeightsError(f"{path} is a damaged safetensors file ({error}); replace it") from error
    return _read_pickle(path)


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
    own = net.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    misshapen = [
        f"{key}: expected {tuple(own[key].shape)}, got {tuple(state[key].shape)}"
        for key in own
        if key in state and own[key].shape != state[key].shape
    ]
    if missing or unexpected or misshapen:
        raise KeyMismatch(source, missing, unexpected, misshapen)


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


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        # Only zip archives can be mapped; what torch wrote before 1.6 is read whole.
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"{path} is refused, nothing of it was executed: it is no safetensors file, and as a pickle it "
            f"holds more than tensors ({reason}). Convert it to safetensors where you trust it"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, AttributeError, SafetensorError) as error:
        raise WeightsError(f"{path} is neither safetensors nor a pickled state dict ({error})") from error
    if isinstance(content, Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(content.get(wrapper), Mapping):
                content = content[wrapper]
                break
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds no tensors by name")
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()):
        raise WeightsError(f"{path} holds other things than tensors by name; give the state dict alone")
    return dict(cast("Mapping[str, Tensor]", content))
