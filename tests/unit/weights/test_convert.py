"""Published checkpoints become safetensors files, whole or not at all, and nothing of them runs."""

import argparse
import collections
import hashlib
import json
import pathlib
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

from facerestore.cli.main import app
from facerestore.core.errors import (
    ConfigError,
    KeyMismatch,
    OutputError,
    WeightsError,
)
from facerestore.diffusion.lora import read_adapter
from facerestore.weights.convert import convert, read_checkpoint
from facerestore.weights.load import read_tensors

STATE = {
    "encoder.weight": torch.arange(6.0).reshape(2, 3),
    "encoder.bias": torch.ones(2),
    "decoder.weight": torch.full((3, 2), 7.0),
}


def prefixed(prefix: str, factor: float = 1.0) -> dict[str, Tensor]:
    return {prefix + key: value * factor for key, value in STATE.items()}


def assert_holds(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert tensors.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(tensors[key], value), key
        assert tensors[key].dtype == value.dtype, key


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as opened:
        return opened.metadata()


def class_of(module: str, name: str, base: type = object) -> Any:
    """A class that pickles as one of a package that is not installed."""
    return type(name, (base,), {"__module__": module, "__qualname__": name})


def install(patch: pytest.MonkeyPatch, module: str, **content: Any) -> None:
    """Make a module importable, with the packages that it lies in."""
    pieces = module.split(".")
    for end in range(1, len(pieces)):
        patch.setitem(sys.modules, ".".join(pieces[:end]), types.ModuleType(".".join(pieces[:end])))
    fake = types.ModuleType(module)
    vars(fake).update(content)
    patch.setitem(sys.modules, module, fake)


@pytest.fixture
def framework(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes classes of frameworks as long as a file is written; when it is read they are gone."""
    with monkeypatch.context() as patch:
        made = {}
        for module, name, base in (
            ("omegaconf.dictconfig", "DictConfig", object),
            ("pytorch_lightning.utilities.parsing", "AttributeDict", dict),
            ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint", object),
        ):
            made[name] = class_of(module, name, base)
            install(patch, module, **{name: made[name]})
        yield types.SimpleNamespace(forget=patch.undo, **made)


def lightning(framework: Any) -> dict[Any, Any]:
    settings = framework.DictConfig()
    settings.content = {"rate": 1e-4, "inner": framework.DictConfig()}
    hyper = framework.AttributeDict()
    hyper["lr"] = 4.5e-6
    return {
        "epoch": 50,
        "global_step": 1200,
        "pytorch-lightning_version": "1.0.8",
        "hyper_parameters": hyper,
        "arguments": argparse.Namespace(seed=1, config=settings),
        "callbacks": {framework.ModelCheckpoint: {"best": np.float32(0.5), "folder": pathlib.Path("x")}},
        "optimizer_states": [{"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}}],
        "seen": collections.defaultdict(list, {"a": [1]}),
        "state_dict": prefixed("vqvae.", 2.0) | prefixed("vqvae_LQ."),
    }


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_lightning_with_its_settings_around(framework: Any, legacy: bool, tmp_path: Path) -> None:
    source, out = tmp_path / "associate_2.ckpt", tmp_path / "out.safetensors"
    torch.save(lightning(framework), source, _use_new_zipfile_serialization=not legacy)
    framework.forget()
    made = convert(source, out, take="vqvae_LQ", drop=["decoder"])
    assert_holds(read_tensors(out), {key: STATE[key] for key in ("encoder.weight", "encoder.bias")})
    assert set(made.left_out) == {
        "hyper_parameters",
        "arguments",
        "callbacks",
        "optimizer_states",
        "seen",
    }
    assert metadata_of(out) == {
        "format": "pt",
        "source": "associate_2.ckpt",
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "taken": "vqvae_LQ",
        "dropped": "decoder",
        "epoch": "50",
        "global_step": "1200",
        "pytorch-lightning_version": "1.0.8",
    }
    assert not {"omegaconf", "pytorch_lightning"} & sys.modules.keys()


def test_basicsr_prefers_the_averaged_weights_and_gives_the_others_when_asked(tmp_path: Path) -> None:
    source = tmp_path / "net_g.pth"
    torch.save({"params": prefixed("", 3.0), "params_ema": STATE}, source)
    averaged = read_checkpoint(source)
    assert_holds(averaged.tensors, STATE)
    assert averaged.left_out == ("params",)
    assert_holds(read_checkpoint(source, take="params").tensors, prefixed("", 3.0))
    encoder = read_checkpoint(source, take="params.encoder").tensors
    assert_holds(encoder, {"weight": STATE["encoder.weight"] * 3, "bias": STATE["encoder.bias"] * 3})
    torch.save({"params": prefixed("params_head.")}, source)
    assert_holds(read_checkpoint(source, take="params_head").tensors, STATE)
    torch.save({"params": STATE}, source)
    assert_holds(read_checkpoint(source).tensors, STATE)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_plain_state_dict_in_its_own_dtypes(legacy: bool, tmp_path: Path) -> None:
    source, out = tmp_path / "embedding_change_weights.pth", tmp_path / "out.safetensors"
    state = dict(STATE) | {"half": torch.ones(3).half(), "steps": torch.tensor(5)}
    torch.save(state, source, _use_new_zipfile_serialization=not legacy)
    convert(source, out)
    assert_holds(read_tensors(out), state)


def test_a_tensor_that_was_saved_alone_is_called_as_its_file(tmp_path: Path) -> None:
    torch.save(torch.arange(6.0), tmp_path / "add_time_ids.pt")
    convert(tmp_path / "add_time_ids.pt", tmp_path / "out.safetensors")
    (name, tensor), *others = read_tensors(tmp_path / "out.safetensors").items()
    assert name == "add_time_ids" and torch.equal(tensor, torch.arange(6.0)) and not others


def test_several_state_dicts_in_one_file_are_told_apart_by_component(tmp_path: Path) -> None:
    """The layout of OSEDiff, with the time layers of TADSR and the refiner of BVI."""
    source = tmp_path / "tadsr.pkl"
    content = {
        "rank_unet": 4,
        "rank_vae": 4,
        "unet_lora_encoder_modules": ["down_blocks.0.attentions.0.proj_in"],
        "state_dict_unet": {"conv_in.lora_A.default_encoder.weight": torch.ones(4, 4, 3, 3)},
        "state_dict_vae": {"encoder.conv_in.lora_A.default_encoder.weight": torch.ones(4, 3, 3, 3)},
        "state_dict_vae_time": {"encoder.time_embedding.linear_1.bias": torch.ones(256)},
        "state_dict_noise_refiner": {"in_proj.bias": torch.ones(64)},
    }
    torch.save(content, source)
    checkpoint = read_checkpoint(source)
    assert set(checkpoint.tensors) == {
        "unet.conv_in.lora_A.default_encoder.weight",
        "vae.encoder.conv_in.lora_A.default_encoder.weight",
        "vae.encoder.time_embedding.linear_1.bias",
        "noise_refiner.in_proj.bias",
    }
    assert checkpoint.metadata == {"rank_unet": "4", "rank_vae": "4"}
    assert checkpoint.left_out == ("unet_lora_encoder_modules",)
    content["state_dict_vae_time"] = content["state_dict_vae"]
    torch.save(content, source)
    with pytest.raises(WeightsError, match=r"vae\.encoder\.conv_in\.\S+ twice"):
        read_checkpoint(source)


def test_nested_networks_are_chosen_by_name(tmp_path: Path) -> None:
    source = tmp_path / "both.pt"
    torch.save({"generator": STATE, "discriminator": prefixed("", 2.0)}, source)
    assert_holds(read_checkpoint(source, take="generator").tensors, STATE)
    assert len(read_checkpoint(source).tensors) == 2 * len(STATE)


# --- adapters ---------------------------------------------------------------------------------------------


def peft_folder(folder: Path, **settings: Any) -> Path:
    folder.mkdir()
    state = {
        f"base_model.model.{module}.lora_{side}.weight": torch.ones(*shape)
        for module in ("mid.to_q", "up.conv1")
        for side, shape in (("A", (4, 8)), ("B", (6, 4)))
    }
    save_file(state, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8} | settings))
    return folder


@pytest.mark.parametrize(
    ("settings", "alphas"),
    [
        ({}, (8.0, 8.0)),
        ({"alpha_pattern": {"conv1": 16}}, (8.0, 16.0)),
        ({"alpha_pattern": {"^mid.to_q": 2}}, (2.0, 8.0)),
        ({"use_rslora": True}, (16.0, 16.0)),
    ],
    ids=["one", "pattern", "anchored pattern", "rank-stabilised"],
)
def test_a_peft_folder_keeps_the_scale_of_each_layer(
    settings: dict[str, Any], alphas: tuple[float, float], tmp_path: Path
) -> None:
    out = tmp_path / "out.safetensors"
    convert(peft_folder(tmp_path / "unet_lora_adapter", **settings), out)
    tensors = read_tensors(out)
    assert len(tensors) == 6
    found = [float(tensors[f"base_model.model.{module}.alpha"]) for module in ("mid.to_q", "up.conv1")]
    assert tuple(found) == alphas
    assert metadata_of(out)["source"] == "unet_lora_adapter"


def test_the_scale_that_diffusers_keeps_in_the_header_becomes_a_tensor(tmp_path: Path) -> None:
    source = tmp_path / "pytorch_lora_weights.safetensors"
    state = {"unet.a.to_q.lora_A.weight": torch.ones(4, 8), "unet.a.to_q.lora_B.weight": torch.ones(8, 4)}
    save_file(state, source, metadata={"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 2})})
    checkpoint = read_checkpoint(source)
    assert float(checkpoint.tensors["unet.a.to_q.alpha"]) == 2.0
    assert len(checkpoint.tensors) == 3
    save_file(state, source)
    assert_holds(read_checkpoint(source).tensors, state)


@pytest.mark.parametrize("broken", ["no config", "no tensors", "no alpha", "no JSON", "no end"])
def test_half_a_peft_folder_is_refused(broken: str, tmp_path: Path) -> None:
    folder = peft_folder(tmp_path / "adapter")
    config = folder / "adapter_config.json"
    if broken == "no config":
        config.unlink()
    elif broken == "no tensors":
        (folder / "adapter_model.safetensors").unlink()
    else:
        config.write_text({"no JSON": "{", "no end": "[" * 100_000}.get(broken, "{}"))
    with pytest.raises(WeightsError, match=r"no PEFT folder|lora_alpha|no JSON"):
        convert(folder, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lora_alpha": None}, "does not say lora_alpha"),
        ({"lora_alpha": "8"}, "lora_alpha of mid.to_q is '8', no number"),
        ({"lora_alpha": True}, "is True, no number"),
        ({"lora_alpha": float("inf")}, "is inf, no number"),
        ({"alpha_pattern": "to_q"}, "alpha_pattern is no list of patterns"),
        ({"alpha_pattern": {"(": 4}}, "alpha_pattern is no list of patterns"),
        ({"alpha_pattern": {"to_q": []}}, r"lora_alpha of mid.to_q is \[\], no number"),
        ({"r": 8}, r"says rank 8, but base_model.model.mid.to_q.lora_A.weight has shape \(4, 8\)"),
        ({"rank_pattern": {"conv1": 2}}, r"says rank 2, but base_model.model.up.conv1.lora_A.weight"),
        ({"rank_pattern": [1]}, "rank_pattern is no list of patterns"),
    ],
)
def test_settings_that_say_nothing_or_something_else_than_the_tensors_are_refused(
    settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = peft_folder(tmp_path / "adapter", **settings)
    with pytest.raises(WeightsError, match=words) as caught:
        read_checkpoint(folder)
    assert str(folder / "adapter_config.json") in str(caught.value)


@pytest.mark.parametrize("targets", [None, [], 5, "nothing"])
def test_which_layers_an_adapter_changes_is_said_by_its_tensors(targets: Any, tmp_path: Path) -> None:
    """Nothing hangs on the list of targets, which only training needs."""
    checkpoint = read_checkpoint(peft_folder(tmp_path / "adapter", target_modules=targets))
    modules = {update.module for update in read_adapter(checkpoint.tensors).updates}
    assert modules == {"mid.to_q", "up.conv1"}


def test_prefixes_are_whole_names_and_must_be_there(tmp_path: Path) -> None:
    source = tmp_path / "x.pt"
    torch.save(prefixed("vqvae.") | prefixed("vqvae_LQ.", 2.0), source)
    assert_holds(read_checkpoint(source, take="vqvae").tensors, STATE)
    assert_holds(read_checkpoint(source, take="vqvae.").tensors, STATE)
    with pytest.raises(WeightsError, match=r"no tensors below 'vq'; it has vqvae, vqvae_LQ$"):
        read_checkpoint(source, take="vq")
    with pytest.raises(WeightsError, match=r"nothing is called 'dec' .* it has decoder, encoder$"):
        convert(source, tmp_path / "out.safetensors", take="vqvae", drop=["dec"])
    assert not (tmp_path / "out.safetensors").exists()


def test_a_result_unlike_the_model_names_every_difference_and_is_not_written(tmp_path: Path) -> None:
    source, out = tmp_path / "x.pt", tmp_path / "out.safetensors"
    torch.save(STATE, source)
    convert(source, tmp_path / "fits.safetensors", like=STATE)
    like = dict(STATE) | {"encoder.weight": torch.ones(2, 4), "more.bias": torch.ones(1)}
    del like["encoder.bias"]
    with pytest.raises(KeyMismatch) as caught:
        convert(source, out, like=like)
    assert caught.value.missing == ("more.bias",)
    assert caught.value.unexpected == ("encoder.bias",)
    assert caught.value.misshapen == ("encoder.weight: expected (2, 4), got (2, 3)",)
    assert not out.exists()


def test_the_same_source_gives_the_same_bytes_without_a_path_or_a_date(tmp_path: Path) -> None:
    source = tmp_path / "x.pt"
    torch.save(STATE | {"note": "ö", "a": 1, "b": 2.5, "c": True}, source)
    written = []
    for number in range(8):
        out = tmp_path / f"{number}.safetensors"
        convert(source, out)
        written.append(out.read_bytes())
    assert len(set(written)) == 1
    assert str(tmp_path).encode() not in written[0]
    assert metadata_of(tmp_path / "0.safetensors").keys() == {
        "format",
        "source",
        "source_sha256",
        "note",
        "a",
        "b",
        "c",
    }


def test_tensors_that_share_memory_are_written_out_each(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"whole": whole, "again": whole, "row": whole[1], "turned": whole.T}
    torch.save(state, tmp_path / "x.pt")
    convert(tmp_path / "x.pt", tmp_path / "out.safetensors")
    assert_holds(read_tensors(tmp_path / "out.safetensors"), state)


def test_a_file_that_is_there_is_never_replaced_and_the_name_must_say_what_it_is(tmp_path: Path) -> None:
    source, out = tmp_path / "x.pt", tmp_path / "out.safetensors"
    torch.save(STATE, source)
    out.write_bytes(b"mine")
    with pytest.raises(OutputError, match="is there already"):
        convert(source, out)
    assert out.read_bytes() == b"mine"
    with pytest.raises(ConfigError, match=r"should end in \.safetensors"):
        convert(source, tmp_path / "out.pth")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        convert(source, tmp_path / "file" / "out.safetensors")


def test_the_command(tmp_path: Path) -> None:
    source, out = tmp_path / "x.ckpt", tmp_path / "out.safetensors"
    torch.save({"state_dict": prefixed("net."), "epoch": 3, "callbacks": [1]}, source)
    save_file({"encoder.weight": STATE["encoder.weight"]}, tmp_path / "like.safetensors")
    arguments = ["weights", "import", str(source), str(out), "--take", "net"]
    refused = CliRunner().invoke(app, [*arguments, "--like", str(tmp_path / "like.safetensors")])
    assert refused.exit_code == 2
    assert "2 unexpected (encoder.bias, decoder.weight)" in refused.stderr
    assert not out.exists()
    made = CliRunner().invoke(app, [*arguments, "--drop", "decoder", "--drop", "encoder.bias"])
    assert made.exit_code == 0, made.stderr
    assert f"{out}: 1 tensors" in made.stdout
    assert "left out: callbacks" in made.stdout
    assert_holds(read_tensors(out), {"encoder.weight": STATE["encoder.weight"]})
