"""Folders that are no networks of diffusers: text encoders as transformers saves them, and tokenizers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from facerestore.core.errors import DownloadFailed, WeightsError, WeightsNotFound
from facerestore.weights.fetch import fetch
from facerestore.weights.folders import folder_files, weight_files
from facerestore.weights.store import WeightStore

ENCODER, TOKENIZER = "z-image-turbo/text-encoder", "z-image-turbo/tokenizer"
PLACE = "Tongyi-MAI/Z-Image-Turbo:"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


def serve(hub: Any, folder: str, **files: bytes) -> None:
    hub.files |= {f"{PLACE}{folder}/{name}": content for name, content in files.items()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def sharded(hub: Any) -> Any:
    index = json.dumps({"weight_map": {"a": SHARDS[0], "b": SHARDS[1]}}).encode()
    tensors = {name: save({key: torch.ones(2)}) for name, key in zip(SHARDS, "ab", strict=True)}
    serve(hub, "text_encoder", **{"config.json": b"{}", "model.safetensors.index.json": index}, **tensors)
    return hub


def test_a_text_encoder_comes_in_one_file(hub: Any, cache: Path) -> None:
    serve(hub, "text_encoder", **{"config.json": b"{}", "model.safetensors": save({"a": torch.ones(2)})})
    folder = fetch([ENCODER], endpoint=hub.endpoint)[ENCODER]
    assert folder == WeightStore().find(ENCODER) == cache / "z-image-turbo" / "text_encoder"
    assert names(folder) == ["config.json", "model.safetensors"]
    assert weight_files(folder, "transformers") == [folder / "model.safetensors"]


def test_a_text_encoder_comes_in_shards(sharded: Any, cache: Path) -> None:
    folder = fetch([ENCODER], endpoint=sharded.endpoint)[ENCODER]
    assert names(folder) == ["config.json", *SHARDS, "model.safetensors.index.json"]
    assert weight_files(folder, "transformers") == [folder / name for name in SHARDS]
    assert sorted(path.name for path in folder_files(folder, "transformers")) == names(folder)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (SHARDS[1], save({"c": torch.zeros(3)}), f"{SHARDS[1]} lacks b"),
        (SHARDS[1], save({"b": torch.zeros(3)})[:-1], "damaged"),
        (
            "model.safetensors.index.json",
            b'{"weight_map": {"a": "pytorch_model.bin"}}',
            "no safetensors file",
        ),
    ],
)
def test_a_text_encoder_that_does_not_fit_together_is_refused(
    sharded: Any, cache: Path, file: str, content: bytes, message: str
) -> None:
    serve(sharded, "text_encoder", **{file: content})
    with pytest.raises(WeightsError, match=message):
        fetch([ENCODER], endpoint=sharded.endpoint)
    assert not (cache / "z-image-turbo" / "text_encoder").exists()


def test_tensors_under_the_names_of_diffusers_are_no_text_encoder(hub: Any, cache: Path) -> None:
    tensors = save({"a": torch.ones(2)})
    serve(hub, "text_encoder", **{"config.json": b"{}", "diffusion_pytorch_model.safetensors": tensors})
    with pytest.raises(DownloadFailed, match=r"text_encoder/: gone \(404\)"):
        fetch([ENCODER], endpoint=hub.endpoint)


@pytest.mark.parametrize(
    "vocabulary",
    [["tokenizer.json"], ["vocab.json", "merges.txt"], ["tokenizer.json", "vocab.json", "merges.txt"]],
)
def test_a_tokenizer_comes_with_what_it_has(hub: Any, cache: Path, vocabulary: list[str]) -> None:
    files = ["chat_template.jinja", "tokenizer_config.json", *vocabulary]
    serve(hub, "tokenizer", **dict.fromkeys(files, b"{}"), **{"README.md": b"", "trap.py": b""})
    folder = fetch([TOKENIZER], endpoint=hub.endpoint)[TOKENIZER]
    assert folder == WeightStore().find(TOKENIZER)
    assert names(folder) == sorted(files)
    assert sorted(path.name for path in folder_files(folder, "tokenizer")) == sorted(files)
    asked = len(hub.asked)
    fetch([TOKENIZER], endpoint=hub.endpoint)
    assert len(hub.asked) == asked


@pytest.mark.parametrize("there", [[], ["vocab.json"], ["special_tokens_map.json"]])
def test_a_tokenizer_without_its_vocabulary_is_none(hub: Any, cache: Path, there: list[str]) -> None:
    serve(hub, "tokenizer", **dict.fromkeys(["tokenizer_config.json", *there], b"{}"))
    with pytest.raises(DownloadFailed, match="tokenizer/: has no vocabulary"):
        fetch([TOKENIZER], endpoint=hub.endpoint)
    assert not (cache / "z-image-turbo" / "tokenizer").exists()


def test_a_folder_of_another_form_is_not_found(hub: Any, cache: Path) -> None:
    folder = cache / "z-image-turbo" / "tokenizer"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with pytest.raises(WeightsNotFound):
        WeightStore().find(TOKENIZER)
    with pytest.raises(WeightsNotFound, match=r"no folder with a tokenizer_config\.json"):
        WeightStore(paths={TOKENIZER: folder}).find(TOKENIZER)
    with pytest.raises(WeightsNotFound, match="no vocabulary"):
        folder_files(folder, "tokenizer")
