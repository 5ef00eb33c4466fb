"""OMGSR-F against its public code on the same made weights (see data/omgsr_f.md)."""

import json
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from facerestore.core.state import RestorationState
from facerestore.diffusion import backbones
from facerestore.diffusion.configs import TINY_FLUX_TRANSFORMER, TINY_FLUX_VAE
from facerestore.stages.omgsr_f import OMGSRF, FluxPrompt
from facerestore.weights.convert import convert
from facerestore.weights.seeded import fill_seeded
from facerestore.weights.store import WeightStore

DATA = Path(__file__).parent / "data" / "omgsr_f.safetensors"
SIZE = (96, 160)
RANK = 64
# What the training script wraps: suffixes of layers.
ENCODER_LAYERS = ["conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out"]
ENCODER_LAYERS += ["to_k", "to_q", "to_v", "to_out.0"]
FLUX_LAYERS = ["x_embedder", "attn.to_k", "attn.to_q", "attn.to_v", "attn.to_out.0"]
FLUX_LAYERS += ["attn.add_k_proj", "attn.add_q_proj", "attn.add_v_proj", "attn.to_add_out"]
FLUX_LAYERS += ["ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"]


def picture() -> torch.Tensor:
    """(1,3,96,160): coloured cells made of integers, the same on every machine."""
    height, width = SIZE
    cells = torch.randint(0, 256, (3, 12, 20), generator=torch.Generator().manual_seed(0))
    rows, columns = torch.arange(height) * 12 // height, torch.arange(width) * 20 // width
    return cells[:, rows[:, None], columns].float()[None] / 255


def draw(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fill tensors in place as `fill_seeded` fills those of a network, the gains of norms about one."""
    fill_seeded(types.SimpleNamespace(state_dict=lambda: tensors))  # type: ignore[arg-type]
    with torch.no_grad():
        for key, tensor in tensors.items():
            if "norm" in key and key.endswith("weight") and tensor.ndim == 1:
                tensor.add_(1)
    return tensors


def write_adapter(folder: Path, net: Any, suffixes: list[str]) -> None:
    """A PEFT folder for every layer whose name ends in one of the suffixes."""
    state: dict[str, torch.Tensor] = {}
    for name, layer in net.named_modules():
        if any(name == suffix or name.endswith(f".{suffix}") for suffix in suffixes):
            weight, key = layer.weight, f"base_model.model.{name}"
            state[f"{key}.lora_A.weight"] = torch.empty(RANK, *weight.shape[1:])
            state[f"{key}.lora_B.weight"] = torch.empty(weight.shape[0], RANK, *[1] * (weight.ndim - 2))
    folder.mkdir(parents=True)
    save_file(draw(state), folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": suffixes}
    (folder / "adapter_config.json").write_text(json.dumps(settings))


def write(folder: Path) -> None:
    """What a user has after downloading: two folders of diffusers, two of PEFT, and a prompt."""
    transformer: Any = backbones.flux_transformer(TINY_FLUX_TRANSFORMER).eval()
    vae: Any = backbones.sd_vae(TINY_FLUX_VAE).eval()
    for name, net in (("transformer", transformer), ("vae", vae)):
        draw(net.state_dict())
        net.save_pretrained(folder / name)
    write_adapter(folder / "flux_adapter", transformer, FLUX_LAYERS)
    write_adapter(folder / "vae_encoder_adapter", vae.encoder, ENCODER_LAYERS)
    noise = torch.Generator().manual_seed(1)
    tokens, pooled = torch.randn(16, 32, generator=noise), torch.randn(32, generator=noise)
    prompt = {"prompt_embeds": tokens, "pooled_prompt_embeds": pooled}
    save_file(prompt, folder / "prompt.safetensors")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> OMGSRF:
    folder = tmp_path_factory.mktemp("download")
    write(folder)
    paths = {f"flux1-dev/{name}": folder / name for name in ("transformer", "vae")}
    paths["flux1-dev/prompt-empty"] = folder / "prompt.safetensors"
    for name, published in (("vae-lora", "vae_encoder_adapter"), ("flux-lora", "flux_adapter")):
        paths[f"omgsr-f/{name}"] = folder / f"{name}.safetensors"
        convert(folder / published, paths[f"omgsr-f/{name}"])
    return OMGSRF.Config(least_px=16).build(WeightStore(paths=paths)).place(torch.device("cpu"), "fp32")


def restored(stage: OMGSRF, pictures: torch.Tensor) -> torch.Tensor:
    """Every 4th pixel of the restored picture."""
    with torch.no_grad():
        return stage(RestorationState.start(pictures)).image[0, :, ::4, ::4]


@pytest.mark.parametrize(
    ("name", "width", "process_px"),
    [("omgsr_f", 96, 96), ("omgsr_f_wide", 160, 160), ("omgsr_f_tiled", 160, 64)],
)
def test_the_picture_is_that_of_the_original(stage: OMGSRF, name: str, width: int, process_px: int) -> None:
    """From the published folders to the picture: a square, a wide one, and in tiles."""
    config = replace(stage.config, tile=process_px // 8, overlap=process_px // 16)
    prompt = FluxPrompt(tokens=stage.tokens, pooled=stage.pooled)
    out = restored(OMGSRF(stage.transformer, stage.codec, prompt, config), picture()[..., :width])
    recorded = load_file(DATA)[name]
    assert recorded.std() > 0.2 and ((recorded > 0) & (recorded < 1)).float().mean() > 0.9
    torch.testing.assert_close(out, recorded, atol=1e-5, rtol=0)
