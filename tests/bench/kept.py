"""What autograd keeps of a pass, counted at full depth on tensors without memory."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from facerestore.diffusion import backbones
from facerestore.diffusion.attached import attach
from facerestore.diffusion.configs import (
    FLUX_TRANSFORMER,
    SD21_UNET,
    SD_VAE,
    SDXL_UNET,
    ZIMAGE_TRANSFORMER,
)
from facerestore.stages.omgsr_f import pack, positions

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
Inputs = Callable[[torch.dtype, str], dict[str, Any]]


def kept_bytes(net: nn.Module, inputs: dict[str, Any]) -> int:
    """Bytes of the tensors that a pass keeps for its way back, each memory once, weights not counted."""
    weights = {value.untyped_storage()._cdata for value in net.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in weights:
            kept[key] = tensor  # held, so that no other memory takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = net(**inputs)
    del out
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def full_depth(name: str, *, checkpointing: bool) -> dict[str, float]:
    """GB of a backbone in bf16 at 512 px, batch 1: kept for the way back, its weights, an adapter's needs."""
    make, config, inputs = BACKBONES[name]
    with torch.device("meta"):
        net: Any = make(config)
    net = nn.Module.to(net, dtype=torch.bfloat16).requires_grad_(False)
    weights = sum(value.numel() * value.element_size() for value in net.parameters())
    if "autoencoder" not in name:
        attach(net, rank=16, alpha=16, targets=ATTENTION)
    moved = sum(value.numel() for value in net.parameters() if value.requires_grad)
    if checkpointing:
        net.enable_gradient_checkpointing()
    kept = kept_bytes(net, inputs(torch.bfloat16, "meta"))
    # In float32: the adapter, its gradient, and the two means of AdamW.
    return {"kept": kept / 1e9, "weights": weights / 1e9, "adapter": 4 * 4 * moved / 1e9}


def unet_inputs(width: int, **conditions: int) -> Inputs:
    """A latent of 512 px and a prompt of this width."""

    def inputs(dtype: torch.dtype, device: str) -> dict[str, Any]:
        made: dict[str, Any] = {
            "sample": torch.zeros(1, 4, 64, 64, dtype=dtype, device=device, requires_grad=True),
            "timestep": torch.zeros(1, device=device),
            "encoder_hidden_states": torch.zeros(1, 77, width, dtype=dtype, device=device),
        }
        more = {name: torch.zeros(1, size, dtype=dtype, device=device) for name, size in conditions.items()}
        return made | ({"added_cond_kwargs": more} if more else {})

    return inputs


def _zimage_inputs(dtype: torch.dtype, device: str) -> dict[str, Any]:
    z = torch.zeros(16, 1, 64, 64, dtype=dtype, device=device, requires_grad=True)
    prompt = torch.zeros(32, 2560, dtype=dtype, device=device)
    return {"x": [z], "t": torch.zeros(1, device=device), "cap_feats": [prompt]}


def _flux_inputs(dtype: torch.dtype, device: str) -> dict[str, Any]:
    z = torch.zeros(1, 16, 64, 64, dtype=dtype, device=device, requires_grad=True)
    return {
        "hidden_states": pack(z),
        "timestep": torch.zeros(1, device=device),
        "guidance": torch.ones(1, device=device),
        "encoder_hidden_states": torch.zeros(1, 512, 4096, dtype=dtype, device=device),
        "pooled_projections": torch.zeros(1, 768, dtype=dtype, device=device),
        "txt_ids": torch.zeros(512, 3, device=device),
        "img_ids": positions(32, 32).to(device),
    }


def _vae_inputs(dtype: torch.dtype, device: str) -> dict[str, Any]:
    return {"sample": torch.zeros(1, 3, 512, 512, dtype=dtype, device=device, requires_grad=True)}


BACKBONES: dict[str, tuple[Callable[..., nn.Module], dict[str, Any], Inputs]] = {
    "SD 2.1's UNet": (backbones.sd_unet, SD21_UNET, unet_inputs(1024)),
    "SDXL's UNet": (backbones.sd_unet, SDXL_UNET, unet_inputs(2048, text_embeds=1280, time_ids=6)),
    "Z-Image": (backbones.zimage_transformer, ZIMAGE_TRANSFORMER, _zimage_inputs),
    "FLUX.1": (backbones.flux_transformer, FLUX_TRANSFORMER, _flux_inputs),
    "the autoencoder of SD 2.1, there and back": (backbones.sd_vae, SD_VAE, _vae_inputs),
}
