"""Adapters that stay apart from their network, for training: attached, switched off, taken out, exported.

The one door to peft. What is exported loads in plain peft and in plain diffusers.
"""

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facerestore.core.errors import ConfigError
from facerestore.core.seeding import generator
from facerestore.diffusion.lora import Adapter, LowRank, scaled
from facerestore.diffusion.merging import require_fit
from facerestore.weights.write import write_file, write_tensors

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
PEFT_FILES = ("adapter_config.json", "adapter_model.safetensors")


def attach(
    net: nn.Module,
    *,
    rank: int,
    alpha: float,
    targets: Sequence[str] | str,
    name: str = "default",
    seed: int = 0,
) -> None:
    """Put a fresh adapter beside layers of `net`, which answers as before until it is trained.

    Only the adapter is trainable afterwards, and it is float32 whatever the dtype of the network.

    Args:
        net: changed in place.
        rank: inner width.
        alpha: the scale times the rank; peft's default of 8 is never taken silently.
        targets: names of layers, each matching whole dotted endings ("conv" is "x.conv" and not "x.conv1"),
            or one regular expression for whole names.
        name: of the adapter; several may be attached.
        seed: of the first factor, normal with deviation 1 / rank; the second is zero.

    Raises:
        ConfigError: if no layer is meant, or the name is taken.
    """
    pattern = targets if isinstance(targets, str) else rf"(.*\.)?({'|'.join(map(re.escape, targets))})"
    modules = [path for path in _projections(net) if re.fullmatch(pattern, path)]
    if not modules:
        raise ConfigError(f"no linear layer or convolution of {type(net).__name__} is called {targets!r}")
    _inject(net, name, dict.fromkeys(modules, rank), dict.fromkeys(modules, alpha))
    for path, layer in _layers(net, name):
        down = layer.lora_A[name].weight
        draw = generator(seed, f"{name}/{path}")
        down.data = torch.randn(down.shape, generator=draw).to(down.device) / rank
        layer.lora_B[name].weight.data.zero_()


def attach_adapter(
    net: nn.Module, adapter: Adapter, *, scale: float | None = None, strength: float = 1.0
) -> None:
    """Put an adapter beside the layers of `net`; the network answers as if it were merged.

    Args:
        net: changed in place.
        adapter: for this network alone, without tensors trained in full.
        scale: alpha / rank, needed where the file does not say alpha.
        strength: factor of the whole update.

    Raises:
        ConfigError: if tensors were trained in full, no scale is known, or a name is taken.
        KeyMismatch: if it was made for another network, or for another scale; then nothing was changed.
    """
    _require_low_rank(adapter)
    found = scaled(adapter, scale)
    require_fit(_projections(net), {}, adapter)
    for name in adapter.names:
        own = {update.module: (update, factor) for update, factor in found if update.name == name}
        ranks = {module: update.rank for module, (update, _) in own.items()}
        alphas = {module: strength * factor * update.rank for module, (update, factor) in own.items()}
        _inject(net, name, ranks, alphas)
        for path, layer in _layers(net, name):
            update = own[path][0]
            for factor, value in (
                (layer.lora_A[name].weight, update.down),
                (layer.lora_B[name].weight, update.up),
            ):
                factor.data = value.detach().to(factor.device, torch.float32).reshape(factor.shape).clone()


@contextmanager
def disabled(net: nn.Module) -> Iterator[None]:
    """Let `net` answer as without its adapters, bit for bit; afterwards they are as they were."""
    trainable = {key: tensor.requires_grad for key, tensor in net.named_parameters()}
    layers = [layer for _, layer in _layers(net) if not layer.disable_adapters]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for key, tensor in net.named_parameters():
            tensor.requires_grad_(trainable[key])


def adapter_of(net: nn.Module, *, source: str = "the attached adapter") -> Adapter:
    """What is attached to `net`, as `merge_adapter` and the exports take it; tensors are shared, not copied.

    Raises:
        ConfigError: if nothing is attached.
    """
    updates = tuple(
        LowRank(
            key=f"{path}.lora_A.{name}.weight",
            component="",
            module=path,
            name=name,
            down=layer.lora_A[name].weight.detach(),
            up=layer.lora_B[name].weight.detach(),
            alpha=layer.scaling[name] * layer.r[name],
        )
        for path, layer in _layers(net)
        for name in layer.lora_A
    )
    if not updates:
        raise ConfigError(f"{type(net).__name__} has no adapter attached")
    return Adapter(updates, (), source)


def detach(net: nn.Module) -> None:
    """Take every adapter out of `net`, which then has its own layers again, untouched."""
    for path, layer in list(_layers(net)):
        parent, _, child = path.rpartition(".")
        setattr(net.get_submodule(parent), child, layer.get_base_layer())
    if hasattr(net, "peft_config"):
        del net.peft_config


def export_peft(
    adapter: Adapter, folder: str | Path, *, base: str, scale: float | None = None, **metadata: str
) -> Path:
    """Write a folder that `peft.PeftModel.from_pretrained` loads, with each layer's own alpha.

    Args:
        adapter: one named adapter, without tensors trained in full.
        folder: made if it is not there; its two files are replaced.
        base: what the adapter belongs to, such as a hub id; an adapter works with no other.
        scale: alpha / rank, needed where the adapter does not say alpha.
        metadata: more to be said of it, such as `timestep="399"`, for `require_made_for`.

    Returns:
        The folder.

    Raises:
        ConfigError: if it is no single low-rank adapter, or no scale is known.
        OutputError: if it cannot be written.
    """
    folder, found = Path(folder), _single(adapter, scale)
    ranks = {update.module: update.rank for update, _ in found}
    alphas = {update.module: factor * update.rank for update, factor in found}
    settings = _settings(ranks, alphas) | {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    tensors: dict[str, Tensor] = {}
    for update, _ in found:
        tensors[f"base_model.model.{update.module}.lora_A.weight"] = update.down
        tensors[f"base_model.model.{update.module}.lora_B.weight"] = update.up
    write_tensors(folder / PEFT_FILES[1], tensors, {"base": base, **metadata})
    write_file(folder / PEFT_FILES[0], json.dumps(settings, indent=2, sort_keys=True).encode())
    return folder


def export_diffusers(
    adapter: Adapter,
    folder: str | Path,
    *,
    component: str,
    base: str,
    scale: float | None = None,
    **metadata: str,
) -> Path:
    """Write a `pytorch_lora_weights.safetensors` that diffusers loads.

    Its loaders take alpha for the rank where a file says nothing, and what a file may say has changed from
    version to version. So the scale is multiplied into the second factor: 1 is then right for every reader.

    Args:
        adapter: one named adapter, without tensors trained in full.
        folder: made if it is not there; the file is replaced.
        component: the part of the pipeline, "unet" or "transformer".
        base: what the adapter belongs to, such as a hub id; an adapter works with no other.
        scale: alpha / rank, needed where the adapter does not say alpha.
        metadata: more to be said of it, such as `timestep="399"`, for `require_made_for`.

    Returns:
        The file.

    Raises:
        ConfigError: if it is no single low-rank adapter, or no scale is known.
        OutputError: if it cannot be written.
    """
    path = Path(folder) / DIFFUSERS_FILE
    tensors: dict[str, Tensor] = {}
    for update, factor in _single(adapter, scale):
        start = f"{component}.{update.module}"
        tensors[f"{start}.lora_A.weight"] = update.down
        tensors[f"{start}.lora_B.weight"] = (update.up.float() * factor).to(update.up.dtype)
    write_tensors(path, tensors, {"base": base, **metadata})
    return path


def _inject(net: nn.Module, name: str, ranks: Mapping[str, int], alphas: Mapping[str, float]) -> None:
    """Let peft wrap exactly these layers, without touching the global generator."""
    from peft import LoraConfig, inject_adapter_in_model

    if any(True for _ in _layers(net, name)):
        raise ConfigError(f"{type(net).__name__} has an adapter named {name!r} already; detach it first")
    others = sorted({other for _, layer in _layers(net) for other in layer.lora_A})
    config = LoraConfig(**_settings(ranks, alphas), init_lora_weights=False)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are meant
        inject_adapter_in_model(config, net, adapter_name=name)
    for _, layer in _layers(net):
        layer.set_adapter([other for other in (*others, name) if other in layer.lora_A])
    for _, layer in _layers(net, name):
        for factor in (layer.lora_A[name], layer.lora_B[name]):
            factor.float()


def _projections(net: nn.Module) -> dict[str, nn.Module]:
    """The network's own layers by name, whether wrapped by peft or not."""
    wrapped: dict[str, nn.Module] = {path: layer.get_base_layer() for path, layer in _layers(net)}
    own: dict[str, nn.Module] = {
        path: module
        for path, module in net.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and not any(path.startswith(f"{above}.") for above in wrapped)
    }
    return own | wrapped


def _settings(ranks: Mapping[str, int], alphas: Mapping[str, float]) -> dict[str, Any]:
    """Fields of a LoraConfig that mean exactly these layers: peft matches a list by endings, this whole."""
    rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
    return {
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": "|".join(re.escape(module) for module in ranks),
        "rank_pattern": {f"^{re.escape(m)}": other for m, other in ranks.items() if other != rank},
        "alpha_pattern": {f"^{re.escape(m)}": other for m, other in alphas.items() if other != alpha},
    }


def _layers(net: nn.Module, name: str | None = None) -> Iterator[tuple[str, Any]]:
    """The layers that peft has wrapped, or those that have the adapter `name`."""
    from peft.tuners.lora import LoraLayer

    for path, module in net.named_modules():
        if isinstance(module, LoraLayer) and (name is None or name in module.lora_A):
            yield path, module


def _require_low_rank(adapter: Adapter) -> None:
    if adapter.wholes:
        raise ConfigError(
            f"{adapter.source} has tensors trained in full ({adapter.wholes[0].key}, ...), which cannot stay "
            "apart from the network; merge it, or take named(...) of it"
        )


def _single(adapter: Adapter, scale: float | None) -> list[tuple[LowRank, float]]:
    _require_low_rank(adapter)
    modules = [(update.component, update.module) for update in adapter.updates]
    if not modules or len(set(modules)) != len(modules) or len(adapter.components) > 1:
        raise ConfigError(f"{adapter.source} is no single adapter; export one part(...) or named(...) of it")
    return scaled(adapter, scale)
