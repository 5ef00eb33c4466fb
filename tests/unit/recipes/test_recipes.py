"""Names, the table, and settings by path."""

from pathlib import Path

import pytest
import torch

import facerestore as fr
from facerestore.core.errors import ConfigError, WeightsNotFound
from facerestore.recipes import get
from facerestore.stages.compose import Chain
from facerestore.stages.realesrgan import RealESRGAN


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


@pytest.mark.parametrize(
    "name",
    [
        *("osdface", "zimage", "sdface", "osdface+zimage", "realesrgan+zimage"),
        *("omgsr-s", "omgsr-f", "osediff", "osediff-face", "pisa-sr", "tadsr", "ntire2026/bvi"),
        *("ntire2026/mipluscv", "ntire2026/honoraicamera"),
    ],
)
def test_one_step_recipes_run_in_tiny_and_name_what_they_miss_in_full(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = get(name).tiny().build(device="cpu", dtype="fp32")
    faces = torch.rand(2, 3, 512, 512, generator=torch.Generator().manual_seed(0))
    out = pipe.restore_aligned(faces)
    assert out.shape == faces.shape and not torch.equal(out, faces)
    singles = torch.cat([pipe.restore_aligned(faces[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(out, singles, atol=1e-4, rtol=0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(WeightsNotFound) as caught:
        fr.load(name, device="cpu")
    for weight in get(name).weights():
        assert (weight in str(caught.value)) == (
            weight not in ("mtcnn", "face-recognition", "realesrgan-x4plus")
        )


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
