"""Component folders as diffusers writes them: every layout is read, what does not fit is refused by name."""

import copy
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import nn

from facerestore.core.errors import KeyMismatch, WeightsError, WeightsNotFound
from facerestore.core.precision import Layout
from facerestore.diffusion import backbones, configs
from facerestore.weights.seeded import fill_seeded

STEM = "diffusion_pytorch_model"


@pytest.fixture
def folder(vae: nn.Module, tmp_path: Path) -> Path:
    vae.save_pretrained(tmp_path)  # type: ignore[operator]
    return tmp_path


def same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (backbones.sd_unet, configs.TINY_UNET),
        (backbones.sd_unet, configs.TINY_SDXL_UNET),
        (backbones.sd_vae, configs.TINY_FLUX_VAE),
        (backbones.tiny_vae, configs.TINY_TAESD),
        (backbones.zimage_transformer, configs.TINY_ZIMAGE_TRANSFORMER),
        (backbones.flux_transformer, configs.TINY_FLUX_TRANSFORMER),
    ],
)
def test_what_diffusers_saves_comes_back(make: Any, config: dict[str, Any], tmp_path: Path) -> None:
    net = make(config)
    fill_seeded(net)
    net.save_pretrained(tmp_path)
    again = backbones.load_component(tmp_path)
    assert type(again) is type(net) and same(again, net) and not again.training
    assert not any(tensor.is_meta for tensor in (*again.parameters(), *again.buffers()))


@pytest.mark.parametrize(
    ("config", "make", "millions"),
    [
        ("SD21_UNET", "sd_unet", 865.91),
        ("SD_VAE", "sd_vae", 83.65),
        ("SDXL_UNET", "sd_unet", 2567.46),
        ("FLUX_VAE", "sd_vae", 83.82),
        ("FLUX_TRANSFORMER", "flux_transformer", 11901.41),
        ("ZIMAGE_TRANSFORMER", "zimage_transformer", 6154.91),
        ("TAESD", "tiny_vae", 2.445),
        ("TAEF1", "tiny_vae", 2.459),
    ],
)
def test_full_size_configs_have_the_published_numbers_of_parameters(
    config: str, make: str, millions: float
) -> None:
    with torch.device("meta"):
        net = getattr(backbones, make)(getattr(configs, config))
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)


def test_a_sharded_folder_is_one_network(vae: nn.Module, folder: Path) -> None:
    (folder / f"{STEM}.safetensors").unlink()
    vae.save_pretrained(folder, max_shard_size="300KB")  # type: ignore[operator]
    shards = sorted(folder.glob("*-of-*.safetensors"))
    assert len(shards) > 2
    assert same(backbones.load_component(folder), vae)
    shards[1].unlink()
    with pytest.raises(WeightsNotFound, match=shards[1].name):
        backbones.load_component(folder)


@pytest.mark.parametrize("left", [0, 5, 100, -10])
def test_a_shard_that_was_cut_is_named(left: int, vae: nn.Module, folder: Path) -> None:
    (folder / f"{STEM}.safetensors").unlink()
    vae.save_pretrained(folder, max_shard_size="300KB")  # type: ignore[operator]
    shard = sorted(folder.glob("*-of-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:left])
    with pytest.raises(WeightsError, match=shard.name):
        backbones.load_component(folder)


@pytest.mark.parametrize("name", [f"{STEM}.fp16.safetensors", f"{STEM}.bin"])
def test_other_file_names(name: str, vae: nn.Module, folder: Path) -> None:
    state = load_file(folder / f"{STEM}.safetensors")
    (folder / f"{STEM}.safetensors").unlink()
    with pytest.raises(WeightsNotFound, match="holds none of"):
        backbones.load_component(folder)
    if name.endswith("bin"):
        torch.save(state, folder / name)
    else:
        save_file({key: tensor.half() for key, tensor in state.items()}, folder / name)
    net = backbones.load_component(folder, dtype=torch.float32)
    for key, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, state[key], atol=1e-3, rtol=1e-3)
        assert tensor.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_wanted_dtype_is_made_from_the_stored_one(
    dtype: torch.dtype, vae: nn.Module, folder: Path
) -> None:
    net = backbones.load_component(folder, dtype=dtype)
    for key, tensor in vae.state_dict().items():
        assert torch.equal(net.state_dict()[key], tensor.to(dtype))


def test_early_names_of_attention_are_read_as_diffusers_reads_them(vae: nn.Module, folder: Path) -> None:
    path = folder / f"{STEM}.safetensors"
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    state = {}
    for key, tensor in load_file(path).items():
        for new, early in old.items():
            key = key.replace(new, early) if "attentions" in key else key
        state[key] = tensor
    assert sum(".proj_attn." in key for key in state) == 4
    save_file(state, path, metadata={"format": "pt"})
    ours = backbones.load_component(folder)
    assert same(ours, vae) and same(ours, AutoencoderKL.from_pretrained(folder))


def test_writing_to_loaded_weights_never_reaches_the_file(folder: Path) -> None:
    path = folder / f"{STEM}.safetensors"
    before = path.read_bytes()
    net = backbones.load_component(folder)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda state: state.pop("decoder.conv_in.bias"), "missing"),
        (lambda state: state.update({"decoder.more": torch.zeros(1)}), "unexpected"),
        (lambda state: state.update({"decoder.conv_in.bias": torch.zeros(3)}), "misshapen"),
    ],
)
def test_weights_that_do_not_fit_are_named(change: Any, kind: str, folder: Path) -> None:
    path = folder / f"{STEM}.safetensors"
    state = load_file(path)
    change(state)
    save_file(state, path)
    with pytest.raises(KeyMismatch, match="decoder") as caught:
        backbones.load_component(folder)
    assert len(getattr(caught.value, kind)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "StableDiffusionPipeline"}, "'StableDiffusionPipeline'; known are"),
        ({"_class_name": "os.system"}, "known are UNet2DConditionModel"),
        ({"_class_name": None}, "known are"),
        ({"_class_name": ["AutoencoderKL"]}, "known are"),
        ({"block_out_channels": "wide"}, "describes no AutoencoderKL"),
        ({"norm_num_groups": 7}, "describes no AutoencoderKL"),
        ({"down_block_types": ["Unheard"]}, "describes no AutoencoderKL"),
        ({"block_out_channels": []}, "describes no AutoencoderKL"),
        ({"latent_channels": 10**12}, "describes no AutoencoderKL"),
        ({"act_fn": "os.system"}, "describes no AutoencoderKL"),
        ({"_class_name": "__init__"}, "known are"),
        ({"self": 1}, "describes no AutoencoderKL"),
        ({"__class__": "os.system"}, "describes no AutoencoderKL"),
    ],
)
def test_a_config_that_asks_for_something_else_is_refused(
    change: dict[str, Any], message: str, folder: Path
) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(WeightsError, match=message):
        backbones.load_component(folder)


def test_a_config_that_says_more_than_the_class_takes_changes_nothing(vae: nn.Module, folder: Path) -> None:
    """Neither code that it names nor other places: they are not looked at."""
    path = folder / "config.json"
    more = {"auto_map": {"AutoModel": "evil.Evil"}, "_name_or_path": "/etc/passwd", "extra": {"a": [1]}}
    path.write_text(json.dumps(json.loads(path.read_text()) | more))
    assert same(backbones.load_component(folder), vae)


@pytest.mark.parametrize("text", ["", "{", "[]", "\0", "[" * 100_000])
def test_a_damaged_config_is_a_typed_error(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"config\.json"):
        backbones.load_component(folder)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match="one diffusers component"):
        backbones.load_component(tmp_path / "nowhere")


def test_damaged_weights_are_a_typed_error(folder: Path) -> None:
    path = folder / f"{STEM}.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    for dtype in (None, torch.bfloat16):
        with pytest.raises(WeightsError, match="damaged"):
            backbones.load_component(folder, dtype=dtype)


@pytest.mark.parametrize(
    "content", [{}, {"weight_map": {}}, {"weight_map": {"a": "../elsewhere.safetensors"}}]
)
def test_an_index_that_names_nothing_or_leaves_its_folder(content: dict[str, Any], folder: Path) -> None:
    (folder / f"{STEM}.safetensors").unlink()
    (folder / f"{STEM}.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=r"weight_map|beside it"):
        backbones.load_component(folder)


def megabytes(name: str) -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(name)).split()[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
def test_loading_costs_what_the_weights_cost_in_the_wanted_dtype(tmp_path: Path) -> None:
    """Of a full-size autoencoder stored in float32 and wanted in bfloat16: 160 MB, not that plus 320 MB."""
    with torch.device("meta"):
        stored = backbones.sd_vae(configs.SD_VAE)
    stored.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in stored.parameters():
            parameter.fill_(0.5)
    stored.save_pretrained(tmp_path)  # type: ignore[operator]
    del stored
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = megabytes("VmRSS")
    net = backbones.load_component(tmp_path, dtype=torch.bfloat16)
    peak = megabytes("VmHWM") - before
    size = sum(parameter.nbytes for parameter in net.parameters()) / 2**20
    assert size == pytest.approx(159.6, abs=0.1)
    assert peak < 1.1 * size


def test_placing_in_another_dtype_says_nothing(vae: nn.Module) -> None:
    lines: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    listener = Listener()
    logging.getLogger("diffusers").addHandler(listener)
    try:
        layout = Layout(dtype=torch.bfloat16, channels_last=True, batch=1)
        net = layout.place(copy.deepcopy(vae), torch.device("cpu"))
    finally:
        logging.getLogger("diffusers").removeHandler(listener)
    assert not lines
    assert {parameter.dtype for parameter in net.parameters()} == {torch.bfloat16}
