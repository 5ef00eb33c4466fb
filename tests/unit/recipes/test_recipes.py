"""Names, the table, and settings by path."""

import re
from pathlib import Path

import pytest
import torch

import facerestore as fr
from facerestore.core.errors import ConfigError, WeightsNotFound
from facerestore.core.state import RestorationState
from facerestore.recipes import get
from facerestore.recipes.catalog import RECIPES
from facerestore.stages.base import Stage
from facerestore.stages.compose import Chain
from facerestore.stages.realesrgan import RealESRGAN
from facerestore.weights.store import WeightStore


def test_the_default_comes_first_and_says_what_it_is() -> None:
    rows = {row.name: row for row in fr.list_recipes()}
    assert next(iter(rows)) == "lite" and rows["lite"].alias_of == "realesrgan"
    assert rows["lite"].stages == ("realesrgan", "color_fix")
    assert rows["lite"].bytes > 30e6 and rows["lite"].licences


def test_an_unknown_name_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match="did you mean 'realesrgan'"):
        get("realesrgn")


def test_settings_reach_the_stage() -> None:
    recipe = get("lite").override("entry_px", "192")
    assert isinstance(recipe.stage, Chain.Config) and isinstance(recipe.stage.stages[0], RealESRGAN.Config)
    assert recipe.stage.stages[0].entry_px == 192
    with pytest.raises(ConfigError, match="several fields"):
        get("lite").override("num_block", "3")


def test_any_coarse_stage_goes_before_any_detail_stage() -> None:
    recipe = get("osdface+zimage")
    assert isinstance(recipe.stage, Chain.Config)
    assert [type(stage).__module__.rsplit(".", 1)[-1] for stage in recipe.stage.stages] == [
        "osdface",
        "zimage",
        "color_fix",
    ]
    assert recipe.status == "needs weights" and recipe.name == "osdface+zimage"
    with pytest.raises(ConfigError, match="no recipe 'nothing'"):
        get("osdface+nothing")


NAMES = tuple(RECIPES)
PAIRS = tuple(f"{coarse}+{detail}" for coarse, detail in zip(NAMES, (*NAMES[1:], NAMES[0]), strict=True))
NEEDS_WEIGHTS = tuple(name for name in NAMES if get(name).status != "runs offline")


def lively(name: str) -> Stage:
    """The tiny stage, norms about one: with made ones of about zero all faces would become the same."""
    stage = get(name).tiny().stage.build(WeightStore())
    with torch.no_grad():
        for key, tensor in stage.state_dict().items():
            if "norm" in key and key.endswith("weight") and tensor.ndim == 1:
                tensor.add_(1)
    return stage


@pytest.mark.parametrize("name", [*NAMES, *PAIRS])
def test_every_recipe_and_every_stage_in_a_pair_gives_a_batch_what_it_gives_singles(name: str) -> None:
    stage = lively(name).place(torch.device("cpu"), "fp32", batch=2)
    faces, seeds = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), (3, 4)
    with torch.no_grad():
        out = stage(RestorationState.start(faces, seeds)).image
        singles = [stage(RestorationState.start(faces[i : i + 1], seeds[i : i + 1])).image for i in range(2)]
    assert out.shape == faces.shape and bool(out.isfinite().all())
    torch.testing.assert_close(out, torch.cat(singles), atol=1e-4, rtol=0)
    assert (out - faces).abs().mean() > 0.01 and (out[0] - out[1]).abs().mean() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_runs_in_tiny_from_end_to_end(name: str, face: torch.Tensor) -> None:
    pipe = get(name).tiny().build(device="cpu", dtype="fp32")
    result = pipe.restore(face, aligned=True)
    (found,) = result.faces
    assert found.status == "restored" and result.image.shape == face.shape
    assert not torch.equal(result.image, face)
    assert result.provenance["recipe"] == name


@pytest.mark.parametrize("name", NEEDS_WEIGHTS)
def test_missing_weights_are_named_all_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with its size, its licence and where it comes from; and the commands that get it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(WeightsNotFound) as caught:
        fr.load(name, device="cpu")
    first, *lines, last = str(caught.value).splitlines()
    specs = [WeightStore().spec(weight) for weight in get(name).stage.weights()]
    assert first == f"{len(specs)} weights are missing:" and len(lines) == len(specs)
    for spec, line in zip(specs, lines, strict=True):
        assert line.startswith(f"  {spec.name}: ") and spec.licence in line and spec.source in line
        assert re.search(r"about [0-9.]+ [MG]B, licence", line)
    on_hub = [spec.name for spec in specs if spec.hub]
    assert f"facerestore weights fetch {' '.join(on_hub)}`" in last and "--weights NAME=PATH" in last
    if get(name).status == "train it yourself":
        assert "trained by the job" in str(caught.value)


def test_load_checks_what_it_is_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        fr.load("lite", batch_size=0)
    with pytest.raises(ConfigError, match="offload"):
        fr.load("lite", offload="disk")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="compiled"):
        fr.load("lite", offload="stages", compiled=True)
    with pytest.raises(WeightsNotFound, match="no such"):
        fr.load("lite", weights={"realesrgan-x4plus": tmp_path / "no such file.safetensors"})
    with pytest.raises(ConfigError, match="no weight named"):
        fr.load("lite", weights={"realesrgn": tmp_path})


def test_every_public_name_works_after_load() -> None:
    fr.load(get("lite").tiny(), device="cpu")
    for name in fr.__all__:
        assert getattr(fr, name) is not None
    assert callable(fr.load) and set(fr.__all__) <= set(dir(fr))
