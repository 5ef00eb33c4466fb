"""SDFace against its official code: its checkpoint goes in as published, the recorded picture comes out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from facerestore.core.errors import KeyMismatch
from facerestore.core.state import RestorationState
from facerestore.diffusion import backbones
from facerestore.diffusion.configs import TINY_SDXL_UNET, TINY_SDXL_VAE
from facerestore.stages.sdface import SDFace
from facerestore.weights.seeded import fill_seeded
from facerestore.weights.spec import WeightSpec
from facerestore.weights.store import WeightStore

RECORDED = Path(__file__).parent / "data" / "sdface.safetensors"
FILES = {
    "sdxl-turbo/unet": "unet",
    "sdxl-turbo/vae": "vae",
    "sdface/lora": "sdface.pth",
    "sdface/prompt": "prompt.safetensors",
}


class _Listed(WeightStore):
    """A store whose manifest lists the four weights of SDFace, whatever they are."""

    def spec(self, name: str) -> WeightSpec:
        texts = dict.fromkeys(("sha256", "licence", "source", "citation", "net", "note"), "")
        return WeightSpec(name=name, file=FILES[name], bytes=0, **texts)


def _store(folder: Path) -> WeightStore:
    return _Listed(paths={name: folder / file for name, file in FILES.items()})


def _published() -> dict[str, torch.Tensor]:
    """The state dict of the official module: the base model with peft's adapters of rank 32 attached."""
    from peft import LoraConfig

    net = nn.Module()
    attention = ["to_k", "to_q", "to_v", "to_out.0"]
    for name, part, targets in (
        ("unet", backbones.sd_unet(TINY_SDXL_UNET), attention),
        ("vae", backbones.sd_vae(TINY_SDXL_VAE), [*attention, "conv1", "conv2"]),
    ):
        part.add_adapter(LoraConfig(r=32, lora_alpha=32, target_modules=targets))
        net.add_module(name, part)
    fill_seeded(net)
    state = net.state_dict()
    return {key: v + 1 if "norm" in key and key.endswith("weight") else v for key, v in state.items()}


def _save_base(folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """The base model's folders, with the weights of `state` or with others."""
    for name, net in (
        ("unet", backbones.sd_unet(TINY_SDXL_UNET)),
        ("vae", backbones.sd_vae(TINY_SDXL_VAE)),
    ):
        if state is not None:
            own = {key.replace(".base_layer", ""): v for key, v in state.items() if "lora" not in key}
            net.load_state_dict({key: own[f"{name}.{key}"] for key in net.state_dict()})
        net.save_pretrained(folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stage: Any = SDFace.Config().tiny().build(WeightStore())
    prompt = {"prompt_embeds": stage.tokens, "add_text_embeds": stage.pooled, "add_time_ids": stage.sizes}
    save_file(prompt, tmp_path / "prompt.safetensors")
    return tmp_path


def _check(folder: Path) -> None:
    recorded = load_file(RECORDED)
    pictures = recorded["pictures"].float() / 255
    stage = SDFace.Config().build(_store(folder))
    state = RestorationState.start(pictures)
    with torch.no_grad():
        restored = stage.restore(pictures, state)
    torch.testing.assert_close(restored, recorded["restored"], atol=1e-4, rtol=0)  # merged here, added there


def test_a_checkpoint_of_adapters_alone(folder: Path) -> None:
    state = _published()
    _save_base(folder, state)
    torch.save({"params": {key: v for key, v in state.items() if "lora" in key}}, folder / "sdface.pth")
    _check(folder)


def test_a_checkpoint_that_brings_the_whole_base_model(folder: Path) -> None:
    _save_base(folder)
    torch.save({"params": _published()}, folder / "sdface.pth")
    _check(folder)


def test_an_adapter_that_finds_no_place_is_not_passed_over(folder: Path) -> None:
    state = _published()
    _save_base(folder, state)
    adapters = {key: v for key, v in state.items() if "lora" in key}
    elsewhere = {key.replace("mid_block", "middle"): v for key, v in adapters.items()}
    torch.save({"params": elsewhere}, folder / "sdface.pth")
    with pytest.raises(KeyMismatch, match="middle"):
        SDFace.Config().build(_store(folder))
