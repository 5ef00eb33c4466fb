"""Files as their authors publish them: PEFT folders, and pickles that are converted into the cache once."""

import hashlib
import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from facerestore.core.errors import ConfigError, WeightsError, WeightsNotFound
from facerestore.diffusion import backbones
from facerestore.diffusion.configs import TINY_SD_VAE
from facerestore.diffusion.lora import load_adapter
from facerestore.weights.convert import convert
from facerestore.weights.names import resolve
from facerestore.weights.seeded import fill_seeded
from facerestore.weights.store import WeightStore

STATE = {"encoder.weight": torch.arange(6.0).reshape(2, 3), "encoder.bias": torch.ones(2).half()}
OTHER = {"vqvae.encoder.weight": torch.zeros(2, 3), "loss.logvar": torch.ones(())}
VRE, LORA = "osdface/visual-prompt", "omgsr-s/unet-lora"


def branch(state: dict[str, torch.Tensor] = STATE) -> dict[str, torch.Tensor]:
    return {f"vqvae_LQ.{key}": tensor for key, tensor in state.items()}


def published(path: Path) -> Path:
    """A checkpoint of which `osdface/visual-prompt` is a part."""
    torch.save({"epoch": 3, "timestep": 399, "optimizer_states": [{}], "state_dict": branch() | OTHER}, path)
    return path


def peft(folder: Path, *, pickled: bool = False) -> Path:
    folder.mkdir(parents=True)
    state = {
        "base_model.model.mid.to_q.lora_A.weight": torch.ones(4, 8),
        "base_model.model.mid.to_q.lora_B.weight": torch.ones(6, 4),
    }
    if pickled:
        torch.save(state, folder / "adapter_model.bin")
    else:
        save_file(state, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_holds(tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert tensors.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(tensors[key], value) and tensors[key].dtype == value.dtype, key


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# --- folders of PEFT ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "bin"])
@pytest.mark.parametrize("given", [False, True], ids=["found", "given"])
def test_an_adapter_may_be_a_folder_of_peft(
    pickled: bool, given: bool, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the weight's name in a weights folder, or by its path; alpha is what its settings say."""
    folder = peft(tmp_path / "own" / "omgsr-s" / "unet-lora", pickled=pickled)
    if not given:
        monkeypatch.setenv("FACERESTORE_WEIGHTS", str(tmp_path / "own"))
    store = WeightStore(paths={LORA: folder} if given else {})
    store.require([LORA])
    assert store.find(LORA) == store.verify(LORA) == folder
    readable = store.readable(LORA)
    assert (readable == folder) != pickled
    (update,) = load_adapter(readable).updates
    assert (update.module, update.alpha, update.rank) == ("mid.to_q", 8.0, 4)
    first = store.sha256(LORA)
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 16}))
    store = WeightStore(paths={LORA: folder})
    assert store.sha256(LORA) != first
    (update,) = load_adapter(store.readable(LORA)).updates
    assert update.alpha == 16


def test_a_file_goes_before_the_folder_beside_it(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setenv("FACERESTORE_WEIGHTS", f"{first}{os.pathsep}{second}")
    folder = peft(first / "omgsr-s" / "unet-lora")
    (second / "omgsr-s").mkdir(parents=True)
    (second / "omgsr-s" / "unet-lora.safetensors").write_bytes(b"")
    assert WeightStore().find(LORA) == folder
    (first / "omgsr-s" / "unet-lora.safetensors").write_bytes(b"")
    assert WeightStore().find(LORA) == first / "omgsr-s" / "unet-lora.safetensors"


def test_only_adapters_may_be_such_folders_and_only_such_folders_adapters(
    tmp_path: Path, cache: Path
) -> None:
    folder = peft(tmp_path / "folder")
    with pytest.raises(WeightsNotFound, match=r"given for 'osdface/projector', is no file;"):
        WeightStore(paths={"osdface/projector": folder}).find("osdface/projector")
    with pytest.raises(WeightsNotFound, match="no folder with a config"):
        WeightStore(paths={"sd21-base/unet": folder}).find("sd21-base/unet")
    (folder / "adapter_config.json").unlink()
    with pytest.raises(WeightsNotFound, match="no file nor a PEFT folder"):
        WeightStore(paths={LORA: folder}).find(LORA)


# --- links that lead nowhere --------------------------------------------------------------------------------


def test_links_in_a_circle_are_files_that_are_not_there(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a weights folder, as a path, and among the files of a component, where they disturb nothing."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sd21-base").symlink_to(tmp_path / "own")
    (tmp_path / "own" / "osdface").symlink_to(tmp_path / "own" / "osdface")
    monkeypatch.setenv("FACERESTORE_WEIGHTS", f"{tmp_path / 'own'}{os.pathsep}{loop}")
    for name in ("sd21-base/unet", VRE):
        with pytest.raises(WeightsNotFound, match="is in none of"):
            WeightStore().find(name)
        with pytest.raises(WeightsNotFound, match="correct the path"):
            WeightStore(paths={name: loop}).find(name)
    with pytest.raises(WeightsNotFound, match="is no folder"):
        resolve({"base": loop}, ["sd21-base/unet"])
    with pytest.raises(WeightsError, match="symbolic links"):
        convert(loop, tmp_path / "out.safetensors")

    vae, folder = backbones.sd_vae(TINY_SD_VAE), tmp_path / "vae"
    fill_seeded(vae)
    vae.save_pretrained(folder)
    store = WeightStore(paths={"sd21-base/vae": folder})
    before = store.sha256("sd21-base/vae")
    (folder / "again").symlink_to(folder)
    for name in ("more.json", "more.safetensors"):
        (folder / name).symlink_to(folder / name)
    store = WeightStore(paths={"sd21-base/vae": folder})
    assert store.sha256("sd21-base/vae") == before
    assert_holds(
        backbones.load_component(store.readable("sd21-base/vae")).state_dict(), dict(vae.state_dict())
    )
    tensors = folder / "diffusion_pytorch_model.safetensors"
    tensors.unlink()
    tensors.symlink_to(tensors)
    with pytest.raises(WeightsNotFound, match="holds none of"):
        backbones.load_component(folder)


# --- pickles ------------------------------------------------------------------------------------------------


def test_a_pickle_is_converted_once_and_reports_its_own_hash(tmp_path: Path, cache: Path) -> None:
    """Of the checkpoint only the part is written that the weight is; the numbers beside it come along."""
    source = published(tmp_path / "associate_2.ckpt")
    copy = cache / "converted" / f"{sha256(source)}-vqvae_LQ.safetensors"
    store = WeightStore(paths={VRE: source})
    assert store.find(VRE) == source and store.readable(VRE) == copy
    assert store.sha256(VRE) == sha256(source)
    assert_holds(store.load(VRE), STATE)
    assert_holds(load_file(copy), STATE)
    with safe_open(copy, "pt") as opened:
        assert opened.metadata()["timestep"] == "399"
    made = copy.stat()
    assert_holds(WeightStore(paths={VRE: source}).load(VRE), STATE)
    again = copy.stat()
    assert (again.st_ino, again.st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
    assert files_below(cache) == {f"converted/{copy.name}"}


@pytest.mark.parametrize("kind", ["ckpt", "part.pth", "whole.safetensors", "imported.safetensors"])
def test_all_forms_of_a_weight_are_the_same(kind: str, tmp_path: Path, cache: Path) -> None:
    """The published checkpoint; its part, pickled; all of it as safetensors; what `weights import` makes."""
    source = tmp_path / f"own.{kind}"
    if kind == "part.pth":
        torch.save(STATE, source)
    elif kind == "whole.safetensors":
        save_file(branch() | OTHER, source)
    else:
        published(source)
    if kind == "imported.safetensors":
        convert(source.rename(tmp_path / "x.ckpt"), source, take="vqvae_LQ")
    assert_holds(WeightStore(paths={VRE: source}).load(VRE), STATE)
    assert (cache / "converted").exists() == (not kind.endswith("safetensors"))


def test_another_pickle_at_the_same_place_is_converted_anew(tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "embedding_change_weights.pth"
    for factor in (1, 2):
        state = {key: tensor * factor for key, tensor in STATE.items()}
        torch.save({"params": state}, source)
        assert_holds(WeightStore(paths={"osdface/projector": source}).load("osdface/projector"), state)
    assert len(files_below(cache)) == 2


@pytest.mark.parametrize("damage", ["cut", "another", "folder"])
def test_a_copy_that_is_not_whole_is_made_again(damage: str, tmp_path: Path, cache: Path) -> None:
    source = published(tmp_path / "associate_2.ckpt")
    copy = WeightStore(paths={VRE: source}).readable(VRE)
    if damage == "cut":
        copy.write_bytes(copy.read_bytes()[:-1])
    else:
        copy.unlink()
    if damage == "another":
        save_file({"a": torch.ones(1)}, copy, metadata={"source_sha256": "0" * 64})
    if damage == "folder":
        copy.mkdir()
        (copy / "file").write_text("")
        assert WeightStore(paths={VRE: source}).readable(VRE) == source  # cannot be replaced
    else:
        assert WeightStore(paths={VRE: source}).readable(VRE) == copy
    assert_holds(WeightStore(paths={VRE: source}).load(VRE), STATE)


def test_a_cache_that_cannot_be_written_is_said_and_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "no folder").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no folder"))
    source = published(tmp_path / "associate_2.ckpt")
    store = WeightStore(paths={VRE: source})
    with caplog.at_level(logging.WARNING):
        assert store.readable(VRE) == source
    assert "associate_2.ckpt has to be unpickled" in caplog.text and "cannot be written" in caplog.text
    assert_holds(store.load(VRE), STATE)
    assert store.sha256(VRE) == sha256(source)
    adapter = peft(tmp_path / "adapter", pickled=True)
    (update,) = load_adapter(WeightStore(paths={LORA: adapter}).readable(LORA)).updates
    assert update.alpha == 8


def test_numbers_that_safetensors_lacks_stay_pickled(tmp_path: Path, cache: Path) -> None:
    source, state = tmp_path / "own.pth", {"a": torch.ones(2, dtype=torch.complex128)}
    torch.save(state, source)
    assert_holds(WeightStore(paths={"osdface/projector": source}).load("osdface/projector"), state)
    assert files_below(cache) == set()


class Touches:
    """Pickles as a call that makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_that_would_run_code_is_refused_and_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    torch.save({"state_dict": branch(), "x": Touches(tmp_path / "ran")}, tmp_path / "evil.ckpt")
    store = WeightStore(paths={VRE: tmp_path / "evil.ckpt"})
    for ask in (store.readable, store.load):
        with pytest.raises(WeightsError, match=r"evil\.ckpt is refused, nothing of it was executed"):
            ask(VRE)
    assert not (tmp_path / "ran").exists() and not cache.exists()


def test_what_is_no_weight_is_refused_by_name(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "words.ckpt").write_text("some words")
    with pytest.raises(WeightsError, match=r"words\.ckpt is neither"):
        WeightStore(paths={VRE: tmp_path / "words.ckpt"}).load(VRE)
    assert not cache.exists()


def test_several_that_convert_at_once_all_get_it(tmp_path: Path, cache: Path) -> None:
    source = published(tmp_path / "associate_2.ckpt")

    def load(_: int) -> dict[str, torch.Tensor]:
        return WeightStore(paths={VRE: source}).load(VRE)

    with ThreadPoolExecutor(4) as pool:
        for tensors in pool.map(load, range(8)):
            assert_holds(tensors, STATE)
    assert files_below(cache) == {f"converted/{sha256(source)}-vqvae_LQ.safetensors"}


def test_a_folder_of_diffusers_that_is_pickled_becomes_one_that_is_not(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae, folder = backbones.sd_vae(TINY_SD_VAE), tmp_path / "sd21-base" / "vae"
    fill_seeded(vae)
    vae.save_pretrained(folder)
    mapped = folder / "diffusion_pytorch_model.safetensors"
    monkeypatch.setenv("FACERESTORE_WEIGHTS", str(tmp_path))
    assert WeightStore().readable("sd21-base/vae") == folder
    torch.save(load_file(mapped), mapped.with_suffix(".bin"))
    assert WeightStore().readable("sd21-base/vae") == folder  # the pickle is not what is read
    mapped.unlink()
    store = WeightStore()
    copy = store.readable("sd21-base/vae")
    assert copy == cache / "converted" / store.sha256("sd21-base/vae")
    assert files_below(copy) == {"config.json", "diffusion_pytorch_model.safetensors"}
    assert_holds(backbones.load_component(copy).state_dict(), dict(vae.state_dict()))
    (copy / "config.json").unlink()  # as if it had been killed before the last file
    assert WeightStore().readable("sd21-base/vae") == copy
    assert (copy / "config.json").read_bytes() == (folder / "config.json").read_bytes()


# --- adapters of the user's own -----------------------------------------------------------------------------


def test_an_adapter_that_only_the_user_knows_has_a_name_of_its_own(tmp_path: Path) -> None:
    file, name = tmp_path / "my.detail.safetensors", "own/1-my_detail"
    save_file({"a.lora_A.weight": torch.ones(4, 8), "a.lora_B.weight": torch.ones(8, 4)}, file)
    store = WeightStore(paths={name: file})
    store.require([name])
    spec = store.spec(name)
    assert spec.licence == "the user's own" and not spec.sha256 and not spec.is_folder and spec.is_adapter
    assert store.readable(name) == file and store.sha256(name) == sha256(file)
    folder = peft(tmp_path / "folder")
    assert WeightStore(paths={name: folder}).readable(name) == folder
    with pytest.raises(WeightsNotFound, match="no file nor a PEFT folder"):
        WeightStore(paths={name: tmp_path / "gone"}).require([name])
    with pytest.raises(ConfigError, match="no weight named 'own/1-my_detail'"):
        WeightStore().find(name)
