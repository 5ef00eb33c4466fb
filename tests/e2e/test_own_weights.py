"""Files as their authors publish them, tiny, through `load` and the command line to restored faces."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

import facerestore as fr
from facerestore.cli.main import app
from facerestore.core.errors import ConfigError
from facerestore.diffusion import backbones
from facerestore.diffusion.configs import TINY_FLUX_VAE, TINY_SD_VAE, TINY_UNET, TINY_ZIMAGE_TRANSFORMER
from facerestore.nets.visual_prompt import PromptProjector, VisualPrompt
from facerestore.weights.convert import convert
from facerestore.weights.seeded import fill_seeded

NAME = "osdface+zimage"
# The sizes of the files below; everything else is as published.
SETTINGS = {
    "square_px": 64,
    "image_px": 32,
    "ch": 32,
    "stage.stages.0.prompt_net.ch_mult": "1,1,2",
    "num_res_blocks": 1,
    "z_channels": 16,
    "codes": 96,
    "code_dim": 16,
    "inputs": 16,
    "outputs": 32,
}


def vivid(net: Any) -> Any:
    """Made weights, norms about one, so that everything matters."""
    fill_seeded(net)
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            if "norm" in key and key.endswith("weight"):
                tensor.add_(1)
    return net.eval()


def update(
    prefix: str, layer: nn.Module, down: str = "lora_A", up: str = "lora_B"
) -> dict[str, torch.Tensor]:
    rows, columns = layer.weight.shape  # type: ignore[misc]
    draw = torch.Generator().manual_seed(columns)
    return {
        f"{prefix}.{down}.weight": torch.randn(16, columns, generator=draw) / 4,
        f"{prefix}.{up}.weight": torch.randn(rows, 16, generator=draw) / 4,
    }


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a user has: `sd21`, `osdface`, `z-image`, and a PEFT folder `my_detail`."""
    folder = tmp_path_factory.mktemp("own")
    unet = vivid(backbones.sd_unet(TINY_UNET))
    unet.save_pretrained(folder / "sd21" / "unet")
    vivid(backbones.sd_vae(TINY_SD_VAE)).save_pretrained(folder / "sd21" / "vae")

    (folder / "osdface").mkdir()
    sizes = VisualPrompt.Config.tiny()
    state = vivid(VisualPrompt(sizes)).state_dict()
    branches = {f"vqvae_LQ.{key}": tensor for key, tensor in state.items()}
    branches |= {"vqvae_LQ.decoder.conv_in.weight": torch.ones(2), "vqvae.quant_conv.bias": torch.ones(2)}
    torch.save({"epoch": 3, "state_dict": branches}, folder / "osdface" / "associate_2.ckpt")
    projector = vivid(PromptProjector(PromptProjector.Config(inputs=sizes.code_dim, outputs=32)))
    torch.save(dict(projector.state_dict()), folder / "osdface" / "embedding_change_weights.pth")
    layer = "mid_block.attentions.0.proj_in"
    lora = update(f"unet.{layer}", unet.get_submodule(layer))
    save_file(lora, folder / "osdface" / "pytorch_lora_weights.safetensors")

    transformer = vivid(backbones.zimage_transformer(TINY_ZIMAGE_TRANSFORMER))
    transformer.save_pretrained(folder / "z-image" / "transformer")
    vivid(backbones.sd_vae(TINY_FLUX_VAE)).save_pretrained(folder / "z-image" / "vae")
    prompt = torch.randn(7, 16, generator=torch.Generator().manual_seed(0))
    save_file({"prompt": prompt}, folder / "z-image" / "prompt.safetensors")

    (folder / "my_detail").mkdir()
    layer = "layers.1.attention.to_q"
    detail = update(f"base_model.model.{layer}", transformer.get_submodule(layer))
    torch.save(detail, folder / "my_detail" / "adapter_model.bin")
    (folder / "my_detail" / "adapter_config.json").write_text(json.dumps({"r": 16, "lora_alpha": 16}))
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "facerestore" / "weights"


def weights(own: Path) -> dict[str, Path]:
    """As they are published: two base models by their groups, OSDFace by one of each kind of name."""
    return {
        "sd21-base": own / "sd21",
        "vre": own / "osdface" / "associate_2.ckpt",
        "osdface/projector": own / "osdface" / "embedding_change_weights.pth",
        "lora": own / "osdface" / "pytorch_lora_weights.safetensors",
        "z-image-turbo": own / "z-image",
    }


def load(given: dict[str, Path], *adapters: Path) -> fr.Pipeline:
    options: Any = {"weights": given, "adapters": adapters, "settings": SETTINGS}
    return fr.load(NAME, device="cpu", dtype="fp32", **options)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def copies(cache: Path) -> set[str]:
    return {path.name for path in (cache / "converted").iterdir()}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_published_files_restore_faces(own: Path, cache: Path, face: torch.Tensor) -> None:
    pipe = load(weights(own), own / "my_detail")
    restored = pipe.restore_aligned(face)
    assert restored.std() > 0.02

    said = pipe.restore(face, aligned=True).provenance["weights"]
    vre, projector = (own / "osdface" / name for name in ("associate_2.ckpt", "embedding_change_weights.pth"))
    assert said["osdface/visual-prompt"] == sha256(vre) and said["osdface/projector"] == sha256(projector)
    names = {f"{sha256(vre)}-vqvae_LQ", sha256(projector), said["own/1-my_detail"]}
    assert copies(cache) == {f"{name}.safetensors" for name in names}

    # The copies that are there now, another folder with all three, and what `weights import` makes.
    assert torch.equal(load(weights(own), own / "my_detail").restore_aligned(face), restored)
    groups = {"sd21-base": own / "sd21", "osdface": own / "osdface", "z-image-turbo": own / "z-image"}
    assert torch.equal(load(groups, own / "my_detail").restore_aligned(face), restored)
    imported = weights(own) | {"vre": cache / "vre.safetensors"}
    convert(vre, imported["vre"], take="vqvae_LQ", drop=["decoder"])
    assert torch.equal(load(imported, own / "my_detail").restore_aligned(face), restored)
    plain = load(weights(own))
    assert not torch.equal(plain.restore_aligned(face), restored)
    assert plain.recipe.fingerprint() != pipe.recipe.fingerprint()
    with pytest.raises(ConfigError, match="'base' may be sd21-base or z-image-turbo"):
        load(weights(own) | {"base": own / "sd21"})


def cli(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_command_takes_them(own: Path, cache: Path, aligned: Path, tmp_path: Path) -> None:
    given = [f"--weights={key}={path}" for key, path in weights(own).items()]
    sizes = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    command: list[object] = ["restore", aligned / "hopper_x8.png", "-o", tmp_path / "out", "--aligned"]
    command += ["--recipe", NAME, "--threads", 1, "--dtype", "fp32", *given, *sizes]
    first = cli(*command, "--adapter", own / "my_detail")
    assert first.exit_code == 0, first.stderr
    assert "1 restored" in first.stdout
    (row,) = map(json.loads, (tmp_path / "out" / "manifest.jsonl").read_text().splitlines())
    said = json.dumps(row)
    assert sha256(own / "osdface" / "associate_2.ckpt") in said and "own/1-my_detail" in said
    assert len(copies(cache)) == 3
    again = cli(*command, "--adapter", own / "my_detail")
    assert "1 of them done before" in again.stdout
    without = cli(*command)
    assert without.exit_code == 0 and "done before" not in without.stdout  # another adapter, another result

    both = cli(*command, "--weights", f"base={own / 'sd21'}")
    assert both.exit_code == 2 and "say which" in both.stderr
    gone = cli(*command, "--adapter", own / "gone")
    assert gone.exit_code == 2 and "gone" in gone.stderr


def test_a_pickle_goes_in_where_a_network_ships(
    repo: Path, cache: Path, aligned: Path, tmp_path: Path
) -> None:
    """Real-ESRGAN as BasicSR saves it: the same pixels as from the file that ships."""
    source = tmp_path / "RealESRGAN_x4plus.pth"
    torch.save({"params_ema": load_file(repo / "weights" / "realesrgan-x4plus.safetensors")}, source)
    command: list[object] = ["restore", aligned / "hopper_x8.png", "--aligned", "--set", "entry_px=64"]
    assert cli(*command, "-o", tmp_path / "shipped").exit_code == 0
    given = cli(*command, "-o", tmp_path / "own", "--weights", f"realesrgan-x4plus={source}")
    assert given.exit_code == 0, given.stderr
    ours, theirs = (Image.open(tmp_path / name / "hopper_x8.png") for name in ("own", "shipped"))
    assert ours.tobytes() == theirs.tobytes()
    assert sha256(source) in (tmp_path / "own" / "manifest.jsonl").read_text()
    assert copies(cache) == {f"{sha256(source)}.safetensors"}
