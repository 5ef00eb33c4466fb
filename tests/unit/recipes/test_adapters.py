"""Adapters of the user's own go behind those of the last stage that takes any."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import facerestore as fr
from facerestore.core.errors import ConfigError, WeightsNotFound
from facerestore.recipes import Recipe, get
from facerestore.recipes.adapters import with_adapters
from facerestore.stages.color_fix import ColorFix
from facerestore.stages.compose import Chain
from facerestore.stages.zimage import ZImage


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my detail.safetensors"
    path.write_bytes(b"")
    return path


def adapters(recipe: Recipe) -> list[tuple[str, ...] | None]:
    """Those of each stage, None for stages that take none."""
    assert isinstance(recipe.stage, Chain.Config)
    return [getattr(stage, "adapters", None) for stage in recipe.stage.stages]


def of(*stages: Any) -> Recipe:
    return replace(get("lite"), stage=Chain.Config(stages=stages))


def test_they_go_to_the_detail_stage_in_their_order(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "v2"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    recipe, paths = with_adapters(get("osdface+zimage"), [file, str(folder)])
    assert adapters(recipe) == [(), ("own/1-my_detail", "own/2-v2"), None]
    assert paths == {"own/1-my_detail": file, "own/2-v2": folder}
    assert recipe.weights() == (*get("osdface+zimage").stage.weights(), *paths, *recipe.weights()[-3:])
    assert recipe.fingerprint() != get("osdface+zimage").fingerprint()


def test_they_go_behind_those_of_the_recipe(file: Path) -> None:
    recipe, _ = with_adapters(get("ntire2026/mipluscv"), [file, "honoraicamera/stage1"])
    assert adapters(recipe)[1] == ("mipluscv/detail-lora", "own/1-my_detail", "honoraicamera/stage1")
    assert "honoraicamera/stage1" in recipe.weights()


def test_the_last_stage_that_takes_any_gets_them_however_deep(file: Path) -> None:
    inner = Chain.Config(stages=(ZImage.Config(), ZImage.Config(), ColorFix.Config()))
    recipe, _ = with_adapters(of(ZImage.Config(), inner, ColorFix.Config()), [file])
    assert isinstance(recipe.stage, Chain.Config) and isinstance(recipe.stage.stages[1], Chain.Config)
    assert adapters(recipe) == [(), None, None]
    assert adapters(replace(recipe, stage=recipe.stage.stages[1])) == [(), ("own/1-my_detail",), None]
    alone, _ = with_adapters(replace(get("lite"), stage=ZImage.Config()), [file])
    assert alone.stage == ZImage.Config(adapters=("own/1-my_detail",))


def test_none_change_nothing() -> None:
    assert with_adapters(get("lite"), ()) == (get("lite"), {})


def test_a_name_goes_before_a_file_unless_it_is_written_as_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "osdface").mkdir()
    (tmp_path / "osdface" / "lora").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    for given, name in (
        ("osdface/lora", "osdface/lora"),
        ("./osdface/lora", "own/1-lora"),
        (Path("osdface/lora"), "own/1-lora"),
    ):
        assert adapters(with_adapters(get("zimage"), [given])[0])[0] == (name,)


@pytest.mark.parametrize(
    ("recipe", "given", "error", "message"),
    [
        ("lite", ["FILE"], ConfigError, "no stage of realesrgan takes adapters"),
        ("zimage", ["gone"], WeightsNotFound, "no adapter 'gone': no file, no PEFT folder"),
        ("zimage", ["FOLDER"], WeightsNotFound, "no PEFT folder"),
        ("zimage", ["osdface/projector"], ConfigError, "no adapter but visual_prompt.PromptProjector"),
        ("zimage", "FILE", ConfigError, "adapters is a list of paths"),
    ],
)
def test_what_is_no_adapter_is_refused(
    recipe: str, given: Any, error: type[Exception], message: str, file: Path
) -> None:
    places = {"FILE": str(file), "FOLDER": str(file.parent)}
    given = places.get(given, given) if isinstance(given, str) else [places.get(g, g) for g in given]
    with pytest.raises(error, match=message):
        fr.load(recipe, adapters=given)
