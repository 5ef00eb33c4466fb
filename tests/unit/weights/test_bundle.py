"""Bundles: whole, verified, completed by the next run, and enough for a machine that has nothing else."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from typer.testing import CliRunner

from facerestore.cli.main import app
from facerestore.core.errors import ChecksumMismatch, ConfigError, OutputError, WeightsError, WeightsNotFound
from facerestore.recipes import get
from facerestore.weights.bundle import bundle
from facerestore.weights.spec import remote
from facerestore.weights.store import WeightStore

NAMES = ("z-image-turbo/transformer", "z-image-turbo/vae", "z-image-turbo/prompt")
STEM = "diffusion_pytorch_model"
SHARDS = [f"{STEM}-0000{number}-of-00002.safetensors" for number in (1, 2)]


@pytest.fixture
def here(cache: Path) -> Path:
    """The cache of a user who has everything that `zimage` needs, with files that nothing reads beside it."""
    transformer, vae = cache / "z-image-turbo" / "transformer", cache / "z-image-turbo" / "vae"
    for folder in (transformer, vae):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    for name, key in zip(SHARDS, "ab", strict=True):
        save_file({key: torch.full((1000,), float(ord(key)))}, transformer / name)
    index = {"weight_map": dict(zip("ab", SHARDS, strict=True))}
    (transformer / f"{STEM}.safetensors.index.json").write_text(json.dumps(index))
    save_file({"c": torch.ones(1000)}, vae / f"{STEM}.safetensors")
    save_file({"c": torch.ones(1000).half()}, vae / f"{STEM}.fp16.safetensors")
    torch.save({"c": torch.ones(1000)}, vae / f"{STEM}.bin")
    (vae / "README.md").write_text("not read")
    save_file({"prompt": torch.ones(3, 2)}, cache / "z-image-turbo" / "prompt.safetensors")
    return cache


FILES = {
    "z-image-turbo/transformer/config.json",
    f"z-image-turbo/transformer/{STEM}.safetensors.index.json",
    *(f"z-image-turbo/transformer/{name}" for name in SHARDS),
    "z-image-turbo/vae/config.json",
    f"z-image-turbo/vae/{STEM}.safetensors",
    "z-image-turbo/prompt.safetensors",
}


def held(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def contents(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "bundle.json").read_text(encoding="utf-8"))["weights"]


def times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in FILES if (folder / name).exists()}


def test_a_machine_that_has_only_the_bundle_has_all(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "new" / "bundle"
    placed = bundle(get("zimage").weights(), out)
    assert placed == {name: out / (here / WeightStore().find(name)).relative_to(here) for name in NAMES}
    assert held(out) == FILES | {"README.txt", "bundle.json"}
    assert all((out / name).read_bytes() == (here / name).read_bytes() for name in FILES)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))
    with pytest.raises(WeightsNotFound):
        WeightStore().require(get("zimage").weights())
    monkeypatch.setenv("FACERESTORE_WEIGHTS", str(out))
    store = WeightStore()
    store.require(get("zimage").weights())
    assert {name: store.verify(name) for name in NAMES} == placed
    assert not store.verify("mtcnn").is_relative_to(out)  # it ships


def test_the_bundle_says_what_it_holds(here: Path, tmp_path: Path) -> None:
    bundle(NAMES, tmp_path / "out")
    entries = contents(tmp_path / "out")
    assert entries.keys() == set(NAMES)
    described = {path: file for entry in entries.values() for path, file in entry["files"].items()}
    assert described.keys() == FILES
    for path, file in described.items():
        content = (tmp_path / "out" / path).read_bytes()
        assert file == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    readme = (tmp_path / "out" / "README.txt").read_text(encoding="utf-8")
    for name in NAMES:
        spec = WeightStore().spec(name)
        assert (entries[name]["licence"], entries[name]["source"]) == (spec.licence, spec.source)
        assert f"{name}: " in readme and spec.licence in readme
    assert "export FACERESTORE_WEIGHTS=" in readme


def test_missing_weights_are_all_named_before_anything_is_copied(here: Path, tmp_path: Path) -> None:
    shutil.rmtree(here / "z-image-turbo" / "vae")
    with pytest.raises(WeightsNotFound, match="2 weights are missing") as caught:
        bundle([*NAMES, "osdface/lora"], tmp_path / "out")
    assert "z-image-turbo/vae" in str(caught.value) and "osdface/lora" in str(caught.value)
    with pytest.raises(ConfigError, match="no weight named"):
        bundle([*NAMES, "osdface/loro"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("prompt.safetensors", cut, r"prompt\.safetensors is damaged"),
        ("vae/config.json", cut, "cannot be read"),
        (f"vae/{STEM}.safetensors", lambda path: path.write_bytes(save({})), "holds no tensors"),
        (f"transformer/{SHARDS[0]}", cut, "damaged"),
        (f"transformer/{SHARDS[1]}", lambda path: path.write_bytes(save({"c": torch.ones(1)})), "lacks b"),
        (f"transformer/{SHARDS[1]}", Path.unlink, f"lacks {SHARDS[1]}"),
    ],
)
def test_what_is_damaged_is_named_before_anything_is_copied(
    here: Path, tmp_path: Path, file: str, damage: Callable[[Path], Any], message: str
) -> None:
    damage(here / "z-image-turbo" / file)
    with pytest.raises(WeightsError, match=message) as caught:
        bundle(NAMES, tmp_path / "out")
    assert str(here) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_file_other_than_the_known_one_is_refused(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = here / "z-image-turbo" / "prompt.safetensors"
    known = {"sha256": "1" * 64, "bytes": path.stat().st_size}
    specs = tuple(dataclasses.replace(s, **known) if s.name == NAMES[2] else s for s in remote())
    monkeypatch.setattr("facerestore.weights.store.remote", lambda: specs)
    with pytest.raises(ChecksumMismatch, match="damaged or another file"):
        bundle(NAMES, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_is_completed_by_the_next(here: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def interrupt(name: str, done: int, total: int) -> None:
        if name == NAMES[1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bundle(NAMES, out, on_progress=interrupt)
    assert held(out) == {name for name in FILES if "transformer" in name}  # nothing half, and no list yet
    before = times(out)
    (out / "z-image-turbo" / ".prompt.safetensors.part").write_bytes(b"what a killed run leaves")
    bundle(NAMES, out)
    assert held(out) == FILES | {"README.txt", "bundle.json"}
    first = times(out)
    assert {name: first[name] for name in before} == before
    told: list[tuple[str, int, int]] = []
    bundle(NAMES, out, on_progress=lambda *what: told.append(what))
    assert times(out) == first
    size = sum((here / name).stat().st_size for name in FILES if "transformer" in name)
    assert [what for what in told if what[0] == NAMES[0]][-1] == (NAMES[0], size, size)


def test_a_copy_that_differs_is_copied_again(here: Path, tmp_path: Path) -> None:
    bundle(NAMES, tmp_path / "out")
    copy = tmp_path / "out" / "z-image-turbo" / "prompt.safetensors"
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    bundle(NAMES, tmp_path / "out")
    assert torch.equal(load_file(copy)["prompt"], torch.ones(3, 2))


def test_a_bundle_tells_of_earlier_runs_what_is_still_there(here: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bundle(NAMES[:2], out)
    bundle(NAMES[2:], out)
    assert contents(out).keys() == set(NAMES)
    (out / "z-image-turbo" / "vae" / "config.json").unlink()
    bundle(NAMES[2:], out)
    assert contents(out).keys() == {NAMES[0], NAMES[2]}
    (out / "bundle.json").write_text('{"weights": {"a": 1}}')
    bundle(NAMES[1:], out)
    assert contents(out).keys() == set(NAMES[1:])


def test_links_become_files_and_what_is_in_place_stays(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the cache of the hub's own client, where every file is a link."""
    path = here / "z-image-turbo" / "prompt.safetensors"
    path.rename(tmp_path / "blob")
    path.symlink_to(tmp_path / "blob")
    placed = bundle([NAMES[2]], tmp_path / "out")[NAMES[2]]
    assert not placed.is_symlink() and placed.read_bytes() == (tmp_path / "blob").read_bytes()
    monkeypatch.setenv("FACERESTORE_WEIGHTS", str(tmp_path / "out"))
    before = placed.stat().st_mtime_ns
    assert bundle([NAMES[2]], tmp_path / "out") == {NAMES[2]: placed}
    assert placed.stat().st_mtime_ns == before


def test_a_disk_that_cannot_take_it_is_named(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10_000))
        with pytest.raises(OutputError, match="GB free"):
            bundle(NAMES, out)
        assert held(out) == set()
        bundle(NAMES[2:], out)  # which is smaller
    (out / "z-image-turbo" / "vae").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="cannot be filled"):
        bundle(NAMES, out)


def test_a_disk_that_gives_back_other_bytes_is_found_out(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(number: int) -> None:
        part = tmp_path / "out" / "z-image-turbo" / ".prompt.safetensors.part"
        part.write_bytes(part.read_bytes()[::-1])

    monkeypatch.setattr(os, "fsync", spoil)
    with pytest.raises(OutputError, match="other bytes"):
        bundle(NAMES[2:], tmp_path / "out")
    assert held(tmp_path / "out") == set()


def test_the_command(here: Path, tmp_path: Path) -> None:
    def cli(*arguments: object) -> Any:
        return CliRunner().invoke(app, ["weights", "bundle", *map(str, arguments)], catch_exceptions=False)

    out = tmp_path / "out"
    done = cli("zimage", "-o", out)
    assert done.exit_code == 0
    *rows, left_out, use = done.stdout.splitlines()
    assert rows == [f"{name}: {out / WeightStore().find(name).relative_to(here)}" for name in NAMES]
    assert left_out.endswith("mtcnn, face-recognition") and f"FACERESTORE_WEIGHTS={out}" in use
    assert held(out) == FILES | {"README.txt", "bundle.json"}
    missing = cli("zimage", "osdface", "-o", tmp_path / "other")
    assert missing.exit_code == 2 and "5 weights are missing" in missing.stderr
    assert not (tmp_path / "other").exists()
    assert "did you mean 'zimage'" in cli("zimag", "-o", out).stderr
    assert cli("zimage").exit_code == 2  # no folder


def test_an_adapter_in_the_form_of_peft_stays_a_folder(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cache / "omgsr-s" / "unet-lora"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    save_file({"a": torch.ones(2)}, folder / "adapter_model.safetensors")
    placed = bundle(["omgsr-s/unet-lora"], tmp_path / "out")["omgsr-s/unet-lora"]
    assert {path.name for path in placed.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nothing"))
    monkeypatch.setenv("FACERESTORE_WEIGHTS", str(tmp_path / "out"))
    assert WeightStore().find("omgsr-s/unet-lora") == placed
