"""Constant prompts as files: made once, found at once, never overwritten, and nothing is written in vain."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from typer.testing import CliRunner

from facerestore.cli.main import app
from facerestore.core.errors import ConfigError, KeyMismatch, OutputError, WeightsNotFound
from facerestore.diffusion.constant_prompt import constant_prompt
from facerestore.diffusion.prepare import prepare
from facerestore.diffusion.prompts import flux_prompt, sd21_prompt, zimage_prompt
from facerestore.weights.spec import remote
from facerestore.weights.store import WeightStore

SD21, ZIMAGE, FLUX = "sd21-base/prompt-empty", "z-image-turbo/prompt", "flux1-dev/prompt-empty"
FACE, NEGATIVE = "sd21-base/prompt-face", "sd21-base/prompt-negative"
FOLDERS = {SD21: "sd21", ZIMAGE: "zimage", FLUX: "flux", FACE: "sd21", NEGATIVE: "sd21"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for weights of a user who has none."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FACERESTORE_WEIGHTS", raising=False)
    return tmp_path / "cache" / "facerestore" / "weights"


def cli(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["weights", *map(str, arguments)], catch_exceptions=False)


def test_what_was_made_is_found_at_once(made_pipelines: Path, cache: Path) -> None:
    made = {name: prepare(name, made_pipelines / folder) for name, folder in FOLDERS.items()}
    assert made == {name: WeightStore().find(name) for name in FOLDERS}
    assert made[ZIMAGE] == cache / "z-image-turbo" / "prompt.safetensors"
    parts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    wanted = {
        SD21: sd21_prompt(made_pipelines / "sd21" / parts[0]),
        ZIMAGE: zimage_prompt(*(made_pipelines / "zimage" / part for part in parts[:2])),
        FLUX: flux_prompt(*(made_pipelines / "flux" / part for part in parts)),
    }
    for name in (FACE, NEGATIVE):
        with safe_open(made[name], framework="pt") as file:
            text = file.metadata()["prompt"]
        folders = (made_pipelines / "sd21" / part for part in parts[:2])
        wanted[name] = sd21_prompt(*folders, text=text)
    for name, path in made.items():
        state = load_file(path)
        assert state.keys() == wanted[name].keys()
        assert all(torch.equal(state[key], tensor) for key, tensor in wanted[name].items())
    for name, tokens, width in ((SD21, 77, 1024), (FACE, 77, 1024), (ZIMAGE, 19, 2560)):
        read = constant_prompt(WeightStore(), name, tokens=0, width=width)
        assert read.shape == (tokens, width) and torch.equal(read, wanted[name]["prompt"])


def test_every_prompt_that_can_be_prepared_is_named_with_its_parts() -> None:
    """The manifest says what a prompt is made of, the code says how: each knows of the other."""
    store = WeightStore()
    prepared = {spec.name: spec for spec in remote() if spec.made_of}
    assert prepared.keys() == FOLDERS.keys()
    for spec in prepared.values():
        assert all(store.spec(part).hub and store.spec(part).is_folder for part in spec.made_of)
        assert f"weights prepare {spec.name}" in spec.source


def test_a_prompt_of_the_users_own_is_written_with_its_text(made_pipelines: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "face.safetensors"
    assert prepare(ZIMAGE, made_pipelines / "zimage", text="a face", out=out) == out
    folders = (made_pipelines / "zimage" / part for part in ("text_encoder", "tokenizer"))
    assert torch.equal(load_file(out)["prompt"], zimage_prompt(*folders, text="a face")["prompt"])
    with safe_open(out, framework="pt") as file:
        assert file.metadata()["prompt"] == "a face"


def test_the_text_encoder_alone_is_enough_for_stable_diffusion(made_pipelines: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    prepare(SD21, made_pipelines / "sd21" / "text_encoder", out=one)
    prepare(SD21, made_pipelines / "sd21", out=other)
    assert one.read_bytes() == other.read_bytes()


def test_parts_that_were_fetched_need_not_be_named(pipelines: Path, cache: Path) -> None:
    cache.mkdir(parents=True)
    with pytest.raises(WeightsNotFound) as caught:
        prepare(ZIMAGE)
    for text in (
        "text_encoder/config.json: z-image-turbo/text-encoder, about 8045.0 MB",
        "tokenizer/tokenizer_config.json: z-image-turbo/tokenizer",
        "`facerestore weights fetch z-image-turbo/text-encoder z-image-turbo/tokenizer`",
    ):
        assert text in str(caught.value)
    (pipelines / "zimage").rename(cache / "z-image-turbo")
    assert prepare(ZIMAGE) == WeightStore().find(ZIMAGE)


@pytest.mark.parametrize("name", FOLDERS)
def test_missing_parts_are_named_before_anything_is_read(name: str, pipelines: Path, cache: Path) -> None:
    folder = pipelines / FOLDERS[name]
    parts = [Path(WeightStore().spec(part).file).name for part in WeightStore().spec(name).made_of]
    settings = "tokenizer_config.json" if parts[-1].startswith("tokenizer") else "config.json"
    (folder / parts[-1] / settings).unlink()
    for path in folder.rglob("*.safetensors"):
        path.write_bytes(b"never looked at")
    with pytest.raises(WeightsNotFound, match=f"{parts[-1]}/{settings}") as caught:
        prepare(name, folder)
    assert (str(caught.value).count("\n  "), str(folder) in str(caught.value)) == (1, True)
    with pytest.raises(WeightsNotFound) as caught:
        prepare(name, folder / "nowhere")
    assert all(f"\n  {part}/" in str(caught.value) for part in parts)
    assert not cache.exists()


def test_nothing_is_overwritten(
    made_pipelines: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, out = made_pipelines / "sd21", tmp_path / "given" / "sd21-base" / "prompt-empty.safetensors"
    prepare(SD21, folder, out=out)
    before = out.read_bytes()
    with pytest.raises(OutputError, match="is there already"):
        prepare(SD21, folder, out=out)
    monkeypatch.setenv("FACERESTORE_WEIGHTS", str(tmp_path / "given"))
    with pytest.raises(OutputError, match=f"{out} is there already"):  # it would be found before the new one
        prepare(SD21, folder)
    assert out.read_bytes() == before and not cache.exists()
    monkeypatch.delenv("FACERESTORE_WEIGHTS")
    prepare(SD21, folder)
    with pytest.raises(OutputError, match="is there already"):
        prepare(SD21, folder)


def test_a_text_encoder_that_does_not_fit_leaves_nothing(pipelines: Path, cache: Path) -> None:
    path = pipelines / "zimage" / "text_encoder" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 3, "layer_types": None}))
    with pytest.raises(KeyMismatch, match="missing"):
        prepare(ZIMAGE, pipelines / "zimage")
    assert not cache.exists()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mtcnn", {}, "mtcnn is not made here; what is: sd21-base/prompt-empty, z-image-turbo/prompt"),
        ("z-image-turbo/promt", {}, "did you mean 'z-image-turbo/prompt'"),
        (SD21, {"text": "a face"}, "that of an empty prompt"),
        (FLUX, {"text": "a face"}, "that of an empty prompt"),
        (FACE, {"text": "a cat"}, "that of the prompt 'a photo of a face"),
        (ZIMAGE, {"out": "prompt.pt"}, r"should end in \.safetensors"),
    ],
)
def test_what_makes_no_sense_is_refused(
    name: str, options: dict[str, Any], message: str, made_pipelines: Path, cache: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(name, made_pipelines / FOLDERS.get(name, "sd21"), **options)


def test_the_command_makes_one_weight(made_pipelines: Path, cache: Path, tmp_path: Path) -> None:
    listed = {line.split()[0]: line for line in cli("list").stdout.splitlines() if line[:1].isalnum()}
    assert "not here: weights prepare" in listed[ZIMAGE]
    done = cli("prepare", ZIMAGE, "--from", made_pipelines / "zimage", "--prompt", "a face")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{ZIMAGE}: {cache / 'z-image-turbo' / 'prompt.safetensors'}, ")
    assert cli("prepare", ZIMAGE, "--from", made_pipelines / "zimage").exit_code == 2
    elsewhere = tmp_path / "mine.safetensors"
    assert cli("prepare", ZIMAGE, "--from", made_pipelines / "zimage", "-o", elsewhere).exit_code == 0
    assert elsewhere.is_file()
    missing = cli("prepare", FLUX, "--from", made_pipelines / "zimage")
    assert missing.exit_code == 2
    assert missing.stderr.splitlines()[1].startswith("  text_encoder_2/config.json: flux1-dev/text-encoder-2")


def test_the_command_makes_what_a_recipe_lacks(made_pipelines: Path, cache: Path) -> None:
    sd21, zimage = made_pipelines / "sd21", made_pipelines / "zimage"
    assert cli("prepare", "osediff", "--from", sd21).exit_code == 0
    again = cli("prepare", "osediff", "--from", sd21)  # it is there, so it is only named
    assert again.exit_code == 0 and str(WeightStore().find(SD21)) in again.stdout
    both = cli("prepare", "osediff+zimage", "--from", zimage)
    assert both.exit_code == 0 and [line.split(":")[0] for line in both.stdout.splitlines()] == [SD21, ZIMAGE]
    nothing = cli("prepare", "lite")
    assert nothing.exit_code == 2 and "lite has nothing to prepare" in nothing.stderr
    for option in (("--prompt", "a face"), ("-o", "x.safetensors")):
        mixed = cli("prepare", "zimage", *option)
        assert mixed.exit_code == 2 and f"name {ZIMAGE}" in mixed.stderr
    assert "did you mean 'osediff'" in cli("prepare", "osedif").stderr
