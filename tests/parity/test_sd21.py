"""OMGSR-S, OSEDiff and PiSA-SR against their public code on the same made weights (see data/sd21.md)."""

import json
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from facerestore.diffusion import backbones
from facerestore.diffusion.configs import TINY_SD_VAE, TINY_UNET
from facerestore.stages.omgsr_s import OMGSRS
from facerestore.stages.osediff import OSEDiff
from facerestore.stages.pisa_sr import PiSASR
from facerestore.stages.sd21 import SD21Config, SD21Stage
from facerestore.weights.convert import convert
from facerestore.weights.seeded import fill_seeded
from facerestore.weights.store import WeightStore

DATA = Path(__file__).parent / "data" / "sd21.safetensors"
SIZE = (96, 160)
# What the published training scripts wrap: suffixes of OMGSR's layers, parts of the others' names.
ATTENTION = ["to_k", "to_q", "to_v", "to_out.0"]
OMGSR_LAYERS = [*ATTENTION, "conv", "conv1", "conv2", "conv_in", "conv_out", "conv_shortcut"]
UNET_PARTS = [*ATTENTION, "conv", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]


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


def base(folder: Path) -> tuple[Any, Any]:
    """Tiny networks in the form of Stable Diffusion's folders, and a prompt; returns the networks."""
    nets: dict[str, Any] = {
        "unet": backbones.sd_unet(TINY_UNET).eval(),
        "vae": backbones.sd_vae(TINY_SD_VAE).eval(),
    }
    for name, net in nets.items():
        draw(net.state_dict())
        net.save_pretrained(folder / name)
    prompt = torch.randn(77, 32, generator=torch.Generator().manual_seed(1))
    save_file({"prompt": prompt}, folder / "prompt.safetensors")
    return nets["unet"], nets["vae"]


def factors(net: Any, layers: list[str], rank: int, name: str = "") -> dict[str, torch.Tensor]:
    """Empty low-rank factors of some layers in peft's key style."""
    modules, state = dict(net.named_modules()), {}
    for layer in layers:
        weight = modules[layer].weight
        state[f"{layer}.lora_A{name}.weight"] = torch.empty(rank, *weight.shape[1:])
        state[f"{layer}.lora_B{name}.weight"] = torch.empty(weight.shape[0], rank, *[1] * (weight.ndim - 2))
    return state


def projections(net: Any) -> list[str]:
    """Every layer that an adapter can change."""
    return [
        name
        for name, layer in net.named_modules()
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d) and "norm" not in name
    ]


def write_omgsr(folder: Path, unet: Any, vae: Any) -> None:
    """The two PEFT folders of the download."""
    for name, net, rank in (("vae_encoder", vae.encoder, 16), ("unet", unet, 32)):
        layers = [
            layer
            for layer in projections(net)
            if any(layer == end or layer.endswith(f".{end}") for end in OMGSR_LAYERS)
        ]
        place = folder / f"{name}_lora_adapter"
        place.mkdir(parents=True)
        wrapped = {f"base_model.model.{key}": value for key, value in factors(net, layers, rank).items()}
        save_file(draw(wrapped), place / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": OMGSR_LAYERS}
        (place / "adapter_config.json").write_text(json.dumps(settings))


def thirds(unet: Any) -> dict[str, list[str]]:
    """The layers that OSEDiff and PiSA-SR wrap, by the adapter that they give each."""
    groups: dict[str, list[str]] = {"encoder": [], "decoder": [], "others": []}
    for layer in projections(unet):
        if any(part in layer for part in UNET_PARTS):
            down, up = (
                "down_blocks" in layer or layer == "conv_in",
                "up_blocks" in layer or layer == "conv_out",
            )
            groups["encoder" if down else "decoder" if up else "others"].append(layer)
    return groups


def write_osediff(path: Path, unet: Any, vae: Any) -> None:
    """`osediff.pkl`: two state dicts beside lists of layer names."""
    groups = thirds(unet)
    of_vae = [name for name in projections(vae) if name.startswith(("encoder.", "quant_conv"))]
    state: dict[str, torch.Tensor] = {}
    for group, layers in groups.items():
        state |= factors(unet, layers, 4, f".default_{group}")
    state["conv_in.base_layer.weight"] = torch.empty_like(unet.conv_in.weight)
    state["conv_in.base_layer.bias"] = torch.empty_like(unet.conv_in.bias)
    content = {f"unet_lora_{group}_modules": layers for group, layers in groups.items()}
    content |= {"vae_lora_encoder_modules": of_vae, "rank_unet": 4, "rank_vae": 4}
    content |= {"state_dict_unet": draw(state)}
    content |= {"state_dict_vae": draw(factors(vae, of_vae, 4, ".default_encoder"))}
    torch.save(content, path)


def write_pisa(path: Path, unet: Any) -> None:
    """`pisa_sr.pkl`: the factors of six adapters in one state dict."""
    content: dict[str, Any] = {"lora_rank_unet_pix": 4, "lora_rank_unet_sem": 4, "state_dict_unet": {}}
    for kind in ("pix", "sem"):
        for group, layers in thirds(unet).items():
            content[f"unet_lora_{group}_modules_{kind}"] = layers
            content["state_dict_unet"] |= factors(unet, layers, 4, f".default_{group}_{kind}")
    draw(content["state_dict_unet"])
    torch.save(content, path)


@pytest.fixture(scope="module")
def download(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a user has after downloading."""
    folder = tmp_path_factory.mktemp("download")
    unet, vae = base(folder)
    write_omgsr(folder, unet, vae)
    write_osediff(folder / "osediff.pkl", unet, vae)
    write_pisa(folder / "pisa_sr.pkl", unet)
    return folder


def build(folder: Path, config: SD21Config, files: dict[str, Path]) -> Any:
    paths = {"sd21-base/unet": folder / "unet", "sd21-base/vae": folder / "vae"}
    paths |= {"sd21-base/prompt-empty": folder / "prompt.safetensors"}
    return config.build(WeightStore(paths=paths | files)).place(torch.device("cpu"), "fp32")


def face(stage: SD21Stage) -> torch.Tensor:
    """Every 4th pixel of the restored picture, (3,24,40)."""
    with torch.no_grad():
        z = stage.codec.encode(picture(), (0,), "mode")
        return stage.codec.decode(stage.step(z)).clamp(0, 1)[0, :, ::4, ::4]


def compare(stage: SD21Stage, name: str, atol: float) -> None:
    recorded = load_file(DATA)[name]
    assert recorded.std() > 0.1 and ((recorded > 0) & (recorded < 1)).float().mean() > 0.5
    torch.testing.assert_close(face(stage), recorded, atol=atol, rtol=0)


@pytest.fixture(scope="module")
def omgsr(download: Path) -> OMGSRS:
    files = {f"omgsr-s/{name}": download / f"{name}.safetensors" for name in ("vae-lora", "unet-lora")}
    for folder, file in zip(("vae_encoder_lora_adapter", "unet_lora_adapter"), files.values(), strict=True):
        convert(download / folder, file)
    return build(download, OMGSRS.Config(), files)


@pytest.mark.parametrize(("name", "tile", "overlap"), [("omgsr_s", 64, 32), ("omgsr_s_tiled", 8, 4)])
def test_omgsr_equals_the_original(omgsr: OMGSRS, name: str, tile: int, overlap: int) -> None:
    """From the published folders to the picture, in one piece and in tiles."""
    config = replace(omgsr.config, tile=tile, overlap=overlap)
    compare(OMGSRS(omgsr.unet, omgsr.codec, omgsr.prompt, config), name, 1e-4)


def test_osediff_equals_the_original(download: Path) -> None:
    """From the published pickle to the picture, in one piece and in tiles."""
    stage = build(download, OSEDiff.Config(), {"osediff/weights": download / "osediff.pkl"})
    compare(stage, "osediff", 1e-4)
    tiled = OSEDiff(stage.unet, stage.codec, stage.prompt, replace(stage.config, tile=8, overlap=4))
    compare(tiled, "osediff_tiled", 1e-4)


@pytest.mark.parametrize(("name", "knobs"), [("pisa_sr", (1, 1)), ("pisa_sr_knobs", (0.8, 1.3))])
def test_pisa_sr_equals_the_original(download: Path, name: str, knobs: tuple[float, float]) -> None:
    """From the published pickle to the picture, by one call of the UNet and by two."""
    config = PiSASR.Config(lambda_pix=knobs[0], lambda_sem=knobs[1])
    stage = build(download, config, {"pisa-sr/weights": download / "pisa_sr.pkl"})
    assert (stage.pixel_unet is None) == (knobs == (1, 1))
    compare(stage, name, 1e-4)
