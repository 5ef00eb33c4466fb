"""The one door to diffusers: builds its networks from plain configs and loads its component folders.

Only the classes named here are ever built; what a `config.json` asks for beyond them is refused.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facerestore.core.errors import WeightsError
from facerestore.diffusion.time_vae import add_time
from facerestore.weights.folders import read_json, weight_files
from facerestore.weights.load import Change, check_keys, read_tensors

CLASSES = (
    "UNet2DConditionModel",
    "AutoencoderKL",
    "AutoencoderTiny",
    "TimeAwareAutoencoderKL",
    "ZImageTransformer2DModel",
    "FluxTransformer2DModel",
)
_TIME_SETTING = "time_scale_shift"
# The names that autoencoders saved by early versions of diffusers have for what is to_q, to_k, ... today.
_OLD_ATTENTION = re.compile(r"(\.attentions\.\d+\.)(query|key|value|proj_attn)(?=\.)")
_NEW_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def sd_unet(config: Mapping[str, Any]) -> nn.Module:
    """The UNet of Stable Diffusion 1, 2 or XL, with random weights."""
    return _build("UNet2DConditionModel", config)


def sd_vae(config: Mapping[str, Any]) -> nn.Module:
    """The autoencoder of Stable Diffusion, SDXL, FLUX or Z-Image, with random weights."""
    return _build("AutoencoderKL", config)


def time_vae(config: Mapping[str, Any]) -> nn.Module:
    """TADSR's autoencoder: Stable Diffusion's with time layers in its encoder, with random weights."""
    return _build("TimeAwareAutoencoderKL", config)


def tiny_vae(config: Mapping[str, Any]) -> nn.Module:
    """The small autoencoder of the TAESD family, with random weights."""
    return _build("AutoencoderTiny", config)


def zimage_transformer(config: Mapping[str, Any]) -> nn.Module:
    """Z-Image's transformer, with random weights; pad tokens, which diffusers leaves unset, are ones."""
    net = _build("ZImageTransformer2DModel", config)
    with torch.no_grad():
        for name in ("x_pad_token", "cap_pad_token"):
            net.get_parameter(name).fill_(1)
    return net


def flux_transformer(config: Mapping[str, Any]) -> nn.Module:
    """FLUX.1's transformer, with random weights."""
    return _build("FluxTransformer2DModel", config)


def load_component(
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    merges: Callable[[nn.Module], Sequence[Change]] | None = None,
) -> nn.Module:
    """Load one component of a diffusers pipeline: `config.json` beside its weights, sharded or not.

    The network is made without memory and its weights stay mapped from the file as long as the dtype is
    that of the file, so that loading costs what the weights cost in the wanted dtype: what an adapter
    changes is changed on the way, tensor by tensor. Writing to them never reaches the file.

    Args:
        folder: the component's own folder, such as `.../unet`.
        dtype: of the weights; None leaves them as stored.
        merges: of the network, still without memory, what is done to each tensor before it is converted; see
            `merging.plan_merge`.

    Returns:
        The network in eval mode, on the CPU.

    Raises:
        WeightsNotFound: if the folder lacks its config, its weights, or one of its shards.
        WeightsError: if a file is damaged, or the config asks for a class that is not known.
        KeyMismatch: if the weights do not fit the config; then nothing was loaded.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json", "give the folder of one diffusers component")
    name = config.get("_class_name")
    if name not in CLASSES:
        raise WeightsError(
            f"{folder / 'config.json'} asks for the class {name!r}; known are {', '.join(CLASSES)}"
        )
    try:
        with torch.device("meta"):
            net = _build(name, config)
    except (TypeError, ValueError, LookupError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise WeightsError(f"{folder / 'config.json'} describes no {name}: {error}") from error
    modern = _modern if name.endswith("AutoencoderKL") else str
    changes = merges(net) if merges is not None else ()

    def change(key: str, tensor: Tensor) -> Tensor:
        for merge in changes:
            tensor = merge(modern(key), tensor)
        return tensor

    state: dict[str, Tensor] = {}
    for path in weight_files(folder, "diffusers"):
        read = read_tensors(path, dtype=dtype, change=change if changes else None)
        state |= {modern(key): tensor for key, tensor in read.items()}
    check_keys(net, state, str(folder))
    net.load_state_dict(state, assign=True)
    return net.eval()


def _build(name: str, config: Mapping[str, Any]) -> nn.Module:
    if name != "TimeAwareAutoencoderKL":
        import diffusers

        if name == "AutoencoderTiny":  # diffusers writes a setting of it that it does not read
            config = {key: value for key, value in config.items() if key != "block_out_channels"}
        return getattr(diffusers, name).from_config(dict(config))
    plain = {key: value for key, value in config.items() if key != _TIME_SETTING}
    if config.get(_TIME_SETTING, "scale_shift") != "scale_shift":
        raise ValueError(f"{_TIME_SETTING} is {config[_TIME_SETTING]!r}; only scale_shift was published")
    vae = _build("AutoencoderKL", plain)
    add_time(vae)
    return vae


def _modern(key: str) -> str:
    return _OLD_ATTENTION.sub(lambda match: match[1] + _NEW_NAMES[match[2]], key)
