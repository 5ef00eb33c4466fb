"""Weights that are the user's to fetch: found where they are put, and all missing ones named at once."""

import json
from pathlib import Path

import pytest

from facerestore.core.errors import WeightsNotFound
from facerestore.weights.spec import manifest, remote
from facerestore.weights.store import WeightStore


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("FACERESTORE_WEIGHTS", str(tmp_path))
    return tmp_path


def test_no_name_is_used_twice_and_everything_says_its_licence_and_source() -> None:
    every = (*manifest(), *remote())
    assert len({spec.name for spec in every}) == len(every)
    assert all(spec.licence and spec.source and spec.citation and spec.bytes > 0 for spec in every)


def test_every_source_on_a_hub_is_a_repository_and_a_path() -> None:
    assert all(not spec.hub for spec in manifest())
    for spec in remote():
        for source in spec.hub:
            repository, colon, path = source.partition(":")
            assert repository.count("/") == 1 and colon
            assert (not path or path.endswith("/")) == spec.is_folder, source  # "" is the repository's root
    first = {spec.name: spec.hub[0] for spec in remote() if spec.hub}
    assert first["sd21-base/vae"] == "stabilityai/stable-diffusion-2-1-base:vae/"


def test_all_missing_weights_are_named_at_once(elsewhere: Path) -> None:
    names = ("sd21-base/unet", "mtcnn", "osdface/lora")
    with pytest.raises(WeightsNotFound) as caught:
        WeightStore().require(names)
    message = str(caught.value)
    assert "2 weights are missing" in message and "mtcnn" not in message
    for part in (
        "sd21-base/unet",
        "3.5 GB",
        "Open RAIL",
        "osdface/lora",
        "none stated",
        "--weights NAME=PATH",
        "`facerestore weights fetch sd21-base/unet osdface/lora`",
    ):
        assert part in message


def test_a_folder_is_found_and_its_hash_follows_its_files(elsewhere: Path) -> None:
    folder = elsewhere / "sd21-base" / "vae"
    folder.mkdir(parents=True)
    with pytest.raises(WeightsNotFound):
        WeightStore().find("sd21-base/vae")  # a folder without a config.json is none of diffusers
    (folder / "config.json").write_text(json.dumps({"a": 1}))
    assert WeightStore().find("sd21-base/vae") == folder
    first = WeightStore().sha256("sd21-base/vae")
    (folder / "config.json").write_text(json.dumps({"a": 2}))
    assert WeightStore().sha256("sd21-base/vae") != first


def test_a_wrong_path_is_named_and_not_passed_over(elsewhere: Path) -> None:
    store = WeightStore(paths={"sd21-base/unet": elsewhere / "nowhere"})
    with pytest.raises(WeightsNotFound, match="no folder with a config"):
        store.require(["sd21-base/unet"])
