"""What made downloads consist of: tensors drawn from their keys, pipelines of diffusers, folders of PEFT."""

import json
import types
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from facerestore.weights.seeded import fill_seeded

ATTENTION = ("to_k", "to_q", "to_v", "to_out.0")


def draw(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fill tensors in place as `fill_seeded` fills those of a network, the gains of norms about one."""
    fill_seeded(types.SimpleNamespace(state_dict=lambda: tensors))  # type: ignore[arg-type]
    with torch.no_grad():
        for key, tensor in tensors.items():
            if "norm" in key and key.endswith("weight") and tensor.ndim == 1:
                tensor.add_(1)
    return tensors


def vivid(net: Any) -> Any:
    """Fill a network by its keys."""
    draw(net.state_dict())
    return net.eval()


def write_pipeline(folder: Path, kind: str, **networks: Any) -> dict[str, Any]:
    """A diffusers pipeline as hubs have it: components, and what restoring does not need; returns the former.

    Transformers come in several files, as the published ones do.
    """
    for name, net in networks.items():
        vivid(net).save_pretrained(folder / name, max_shard_size="100KB" if name == "transformer" else "10GB")
    others = {
        "model_index.json": {"_class_name": kind, "scheduler": ["diffusers", "DDIMScheduler"]},
        "scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000},
        "text_encoder/config.json": {"architectures": ["CLIPTextModel"], "hidden_size": 1024},
        "tokenizer/vocab.json": {"<|startoftext|>": 0},
    }
    for name, content in others.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    (folder / "README.md").write_text(f"# {kind}\n")
    return networks


def write_prompt(path: Path) -> Path:
    """What the text encoder of Stable Diffusion would say to an empty prompt."""
    save_file({"prompt": torch.randn(77, 32, generator=torch.Generator().manual_seed(1))}, path)
    return path


def factors(net: nn.Module, layers: list[str], rank: int, name: str = "") -> dict[str, torch.Tensor]:
    """Empty low-rank factors of some layers in peft's key style, those of a named adapter below its name."""
    modules, state = dict(net.named_modules()), {}
    for layer in layers:
        weight: Any = modules[layer].weight
        state[f"{layer}.lora_A{name}.weight"] = torch.empty(rank, *weight.shape[1:])
        state[f"{layer}.lora_B{name}.weight"] = torch.empty(weight.shape[0], rank, *[1] * (weight.ndim - 2))
    return state


def projections(net: nn.Module) -> list[str]:
    """Every layer that an adapter can change."""
    return [
        name
        for name, layer in net.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and "norm" not in name
    ]


def write_peft(folder: Path, net: nn.Module, suffixes: tuple[str, ...], rank: int) -> Path:
    """A folder as peft writes it, for layers whose names end in one of the suffixes; alpha is the rank."""
    layers = [
        layer
        for layer in projections(net)
        if any(layer == end or layer.endswith(f".{end}") for end in suffixes)
    ]
    state = {f"base_model.model.{key}": value for key, value in factors(net, layers, rank).items()}
    folder.mkdir(parents=True)
    save_file(draw(state), folder / "adapter_model.safetensors", {"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": list(suffixes),
        "init_lora_weights": "gaussian",
        "alpha_pattern": {},
        "rank_pattern": {},
        "use_rslora": False,
        "use_dora": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\n")
    return folder
