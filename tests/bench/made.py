"""Full-size weights that nobody trained, written where the store looks for the official ones.

Numbers are drawn once and repeated: a bench asks how long and how much, not how well.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from facerestore.diffusion import backbones
from facerestore.diffusion.configs import (
    FLUX_VAE,
    SD21_UNET,
    SD_VAE,
    SDXL_UNET,
    SDXL_VAE,
    TAEF1,
    TAESD,
    ZIMAGE_TRANSFORMER,
)
from facerestore.nets.visual_prompt import PromptProjector, VisualPrompt
from facerestore.weights.spec import remote

SHARD_BYTES = 2_000_000_000
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
# In the published dtypes, but for SDXL-Turbo's UNet: in bf16 it takes half the disk.
FOLDERS: dict[str, tuple[Any, Mapping[str, Any], torch.dtype]] = {
    "sd21-base/unet": (backbones.sd_unet, SD21_UNET, torch.float32),
    "sd21-base/vae": (backbones.sd_vae, SD_VAE, torch.float32),
    "sdxl-turbo/unet": (backbones.sd_unet, SDXL_UNET, torch.bfloat16),
    "sdxl-turbo/vae": (backbones.sd_vae, SDXL_VAE, torch.float32),
    "z-image-turbo/transformer": (backbones.zimage_transformer, ZIMAGE_TRANSFORMER, torch.bfloat16),
    "z-image-turbo/vae": (backbones.sd_vae, FLUX_VAE, torch.bfloat16),
    "taesd": (backbones.tiny_vae, TAESD, torch.float32),
    "taef1": (backbones.tiny_vae, TAEF1, torch.float32),
}
ADAPTERS = {  # rank, and the network that they are for
    "osdface/lora": (16, "sd21-base/unet", "unet."),
    "mipluscv/detail-lora": (64, "z-image-turbo/transformer", "transformer."),
}
_NUMBERS = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0))


def write(folder: Path, *names: str) -> Path:
    """Write the weights of these names that are not there yet, at the manifest's paths."""
    files = {spec.name: spec.file for spec in remote()}
    for name in names:
        target = folder / files[name]
        if target.exists():
            continue
        if name in FOLDERS:
            make, config, dtype = FOLDERS[name]
            write_folder(target, meta(make, config), dtype)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            save_file(dict(tensors(name)), target)
    return folder


def meta(make: Any, config: Mapping[str, Any]) -> Any:
    """A network without memory."""
    with torch.device("meta"):
        return make(config)


def write_folder(target: Path, net: Any, dtype: torch.dtype) -> None:
    """A diffusers folder in shards, so that no network is ever whole in memory."""
    target.mkdir(parents=True)
    net.save_config(target)
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    places: dict[str, str] = {}

    def flush() -> None:
        name = f"diffusion_pytorch_model-{len(shards):05d}.safetensors"
        save_file(shards[-1], target / name)
        places.update(dict.fromkeys(shards[-1], name))
        shards.append({})

    for key, like in net.state_dict().items():
        shards[-1][key] = filled(key, like.shape, dtype)
        size += shards[-1][key].nbytes
        if size > SHARD_BYTES:
            flush()
            size = 0
    flush()
    index = {"metadata": {}, "weight_map": places}
    (target / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def filled(key: str, shape: torch.Size, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers with which signals keep their size: gains of one, small biases, matrices by their fan-in."""
    if len(shape) < 2:
        return torch.full(shape, float("norm" in key and key.endswith("weight")), dtype=dtype)
    numbers = _NUMBERS.to(dtype) / math.sqrt(math.prod(shape[1:]))
    count = math.prod(shape)
    return numbers.repeat(-(-count // len(numbers)))[:count].reshape(shape).contiguous()


def tensors(name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a single file."""
    if name in ADAPTERS:
        rank, base, prefix = ADAPTERS[name]
        make, config, _ = FOLDERS[base]
        for path, layer in meta(make, config).named_modules():
            if isinstance(layer, nn.Linear) and path.endswith(ATTENTION) and "context_refiner" not in path:
                start = f"{prefix}{path}"
                yield f"{start}.lora_A.weight", filled("", torch.Size((rank, layer.in_features)))
                yield f"{start}.lora_B.weight", filled("", torch.Size((layer.out_features, rank))) / 10
                yield f"{start}.alpha", torch.tensor(float(rank))
    elif name in ("osdface/visual-prompt", "osdface/projector"):
        net = (
            VisualPrompt(VisualPrompt.Config())
            if "visual" in name
            else PromptProjector(PromptProjector.Config())
        )
        yield from ((key, filled(key, like.shape)) for key, like in net.state_dict().items())
    elif name == "sdface/lora":
        make, config, _ = FOLDERS["sdxl-turbo/unet"]
        yield "unet.conv_in.lora_A.default.weight", filled("", torch.Size((32, 4, 3, 3)))
        yield "unet.conv_in.lora_B.default.weight", filled("", torch.Size((320, 32, 1, 1)))
        yield "vae.encoder.conv_in.lora_A.default.weight", filled("", torch.Size((32, 3, 3, 3)))
        yield "vae.encoder.conv_in.lora_B.default.weight", filled("", torch.Size((128, 32, 1, 1)))
    elif name == "sdface/prompt-embeds":
        yield "prompt_embeds", filled("", torch.Size((1, 77, 2048))) * 45
    elif name == "sdface/text-embeds":
        yield "add_text_embeds", filled("", torch.Size((1, 1280))) * 36
    elif name == "sdface/time-ids":
        yield "add_time_ids", torch.tensor([[512.0, 512.0, 0.0, 0.0, 512.0, 512.0]])
    elif name == "z-image-turbo/prompt":
        yield "prompt", filled("", torch.Size((8, 2560))) * 50
    else:
        raise ValueError(f"no made weight for {name}")
