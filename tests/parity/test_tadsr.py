"""TADSR, and BVI on top of it, against their public code on the same made weights (see data/tadsr.md)."""

import json
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from facerestore.core.errors import KeyMismatch
from facerestore.diffusion import backbones
from facerestore.diffusion.configs import TINY_SD_VAE, TINY_UNET
from facerestore.diffusion.time_vae import time_keys
from facerestore.nets.residual_refiner import ResidualRefiner
from facerestore.stages.tadsr import TADSR
from facerestore.weights.convert import convert
from facerestore.weights.seeded import fill_seeded
from facerestore.weights.store import WeightStore

DATA = Path(__file__).parent / "data" / "tadsr.safetensors"
SIZE = (96, 160)
# What the training script wraps: names of layers that hold one of these.
UNET_PARTS = ["to_k", "to_q", "to_v", "to_out.0", "conv", "proj_out", "proj_in", "ff.net.2", "ff.net.0.proj"]
VAE_PARTS = ["conv", "to_k", "to_q", "to_v", "to_out.0"]


def picture() -> torch.Tensor:
    """(1,3,96,160): coloured cells made of integers, the same on every machine."""
    height, width = SIZE
    cells = torch.randint(0, 256, (3, 12, 20), generator=torch.Generator().manual_seed(0))
    rows, columns = torch.arange(height) * 12 // height, torch.arange(width) * 20 // width
    return cells[:, rows[:, None], columns].float()[None] / 255


def draw(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fill tensors in place as `fill_seeded` fills those of a network, norms about one."""
    fill_seeded(types.SimpleNamespace(state_dict=lambda: tensors))  # type: ignore[arg-type]
    with torch.no_grad():
        for key, tensor in tensors.items():
            if "norm" in key and key.endswith("weight"):
                tensor.add_(1)
    return tensors


def factors(net: Any, layers: list[str], name: str) -> dict[str, torch.Tensor]:
    """Empty factors of rank 4 in peft's key style."""
    modules, state = dict(net.named_modules()), {}
    for layer in layers:
        weight = modules[layer].weight
        ones = [1] * (weight.ndim - 2)
        state[f"{layer}.lora_A.{name}.weight"] = torch.empty(4, *weight.shape[1:])
        state[f"{layer}.lora_B.{name}.weight"] = torch.empty(weight.shape[0], 4, *ones)
    return state


def projections(net: Any, parts: list[str]) -> list[str]:
    """The layers whose names hold one of some parts."""
    kinds = torch.nn.Linear | torch.nn.Conv2d
    names = [name for name, layer in net.named_modules() if isinstance(layer, kinds)]
    return [name for name in names if any(part in name for part in parts) and "norm" not in name]


def checkpoint(unet: Any, vae: Any) -> dict[str, Any]:
    """What `tadsr.pkl` holds."""
    groups: dict[str, list[str]] = {"encoder": [], "decoder": [], "others": []}
    for layer in projections(unet, UNET_PARTS):
        down, up = "down_blocks" in layer or "conv_in" in layer, "up_blocks" in layer or "conv_out" in layer
        groups["encoder" if down else "decoder" if up else "others"].append(layer)
    of_vae = [
        name
        for name in projections(vae, VAE_PARTS)
        if name == "quant_conv" or ("encoder" in name and "time" not in name)
    ]
    of_unet: dict[str, torch.Tensor] = {}
    for group, layers in groups.items():
        of_unet |= factors(unet, layers, f"default_{group}")
    of_unet["conv_in.base_layer.weight"] = torch.empty_like(unet.conv_in.weight)
    of_unet["conv_in.base_layer.bias"] = torch.empty_like(unet.conv_in.bias)
    time = {key: torch.empty_like(vae.state_dict()[key]) for key in time_keys(vae)}
    content = {f"unet_lora_{group}_modules": layers for group, layers in groups.items()}
    content |= {"vae_lora_encoder_modules": of_vae, "rank_unet": 4, "rank_vae": 4}
    return content | {
        "state_dict_vae_time": {key: tensor.flip(0) for key, tensor in draw(time).items()},
        "state_dict_unet": draw(of_unet),
        "state_dict_vae": draw(factors(vae, of_vae, "default_encoder")),
    }


def write_download(folder: Path) -> None:
    """The folder that a user has after downloading, all tiny; `bvi.pkl` is `tadsr.pkl` with a refiner."""
    unet: Any = backbones.sd_unet(TINY_UNET).eval()
    vae: Any = backbones.time_vae(TINY_SD_VAE).eval()
    for name, net in (("unet", unet), ("time_vae", vae)):
        draw(net.state_dict())
        net.save_pretrained(folder / name)
    config = folder / "time_vae" / "config.json"
    settings = json.loads(config.read_text()) | {"_class_name": "TimeAwareAutoencoderKL"}
    config.write_text(json.dumps(settings | {"time_scale_shift": "scale_shift"}))
    prompt = torch.randn(77, 32, generator=torch.Generator().manual_seed(1))
    save_file({"prompt": prompt}, folder / "prompt.safetensors")
    content = checkpoint(unet, vae)
    torch.save(content, folder / "tadsr.pkl")
    refiner = dict(ResidualRefiner(ResidualRefiner.Config()).state_dict())
    torch.save(content | {"state_dict_noise_refiner": draw(refiner)}, folder / "bvi.pkl")


@pytest.fixture(scope="module")
def download(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("download")
    write_download(folder)
    convert(folder / "bvi.pkl", folder / "weights.safetensors", drop=["noise_refiner"])
    convert(folder / "bvi.pkl", folder / "refiner.safetensors", take="noise_refiner")
    return folder


def build(folder: Path, config: TADSR.Config, weights: str = "weights.safetensors") -> TADSR:
    paths = {
        "sd21-base/unet": folder / "unet",
        "sd21-base/prompt-empty": folder / "prompt.safetensors",
        "tadsr/time-vae": folder / "time_vae",
        "tadsr/weights": folder / weights,
        "bvi/refiner": folder / "refiner.safetensors",
    }
    return config.build(WeightStore(paths=paths)).place(torch.device("cpu"), "fp32")


def face(stage: TADSR) -> torch.Tensor:
    """Every 4th pixel of the restored picture, (3,24,40)."""
    with torch.no_grad():
        z = stage.codec.encode(picture(), (0,), "mode")
        return stage.codec.decode(stage.step(z)).clamp(0, 1)[0, :, ::4, ::4]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tadsr_500", {}),
        ("tadsr_37", {"timestep": 37}),
        ("tadsr_tiled", {"tile": 8, "overlap": 4}),
        ("bvi_500", {"refiner": "bvi/refiner"}),
        ("bvi_tiled", {"refiner": "bvi/refiner", "tile": 8, "overlap": 4}),
    ],
)
def test_pictures_equal_the_original(download: Path, name: str, settings: dict[str, Any]) -> None:
    """From the published files to the picture, in one piece and in tiles."""
    recorded = load_file(DATA)[name]
    assert recorded.std() > 0.1 and ((recorded > 0) & (recorded < 1)).float().mean() > 0.5
    restored = face(build(download, TADSR.Config(**settings)))
    torch.testing.assert_close(restored, recorded, atol=2e-5, rtol=0)


def test_the_published_pickle_goes_in_as_it_is(download: Path) -> None:
    expected = face(build(download, TADSR.Config()))
    assert torch.equal(face(build(download, TADSR.Config(), "tadsr.pkl")), expected)
    doubled = build(download, replace(TADSR.Config(), lora_scale=1.0))
    assert (face(doubled) - expected).abs().max() > 1e-2


def test_a_file_that_is_not_whole_or_holds_more_is_refused(download: Path) -> None:
    whole = load_file(download / "weights.safetensors")

    def refused(state: dict[str, torch.Tensor], words: str) -> None:
        save_file(state, download / "other.safetensors")
        with pytest.raises(KeyMismatch, match=words):
            build(download, TADSR.Config(), "other.safetensors")

    refused({k: v for k, v in whole.items() if ".time_emb" not in k}, "24 missing|missing.*time_emb")
    refused({k: v for k, v in whole.items() if "default_decoder" not in k}, "unet adapter default_decoder")
    refused({k: v for k, v in whole.items() if k.startswith("unet.")}, "1 missing .vae")
    with pytest.raises(KeyMismatch, match="unexpected"):
        build(download, TADSR.Config(), "bvi.pkl")
