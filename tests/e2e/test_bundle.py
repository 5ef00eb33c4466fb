"""A folder made by `weights bundle` is all that a machine without network needs to restore the same faces."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from facerestore import recipes
from facerestore.cli.main import app
from facerestore.diffusion import backbones, configs
from facerestore.weights.seeded import fill_seeded
from facerestore.weights.store import WeightStore


def test_a_recipe_restores_from_its_bundle_alone(
    face: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for part, make, config in (
        ("transformer", backbones.zimage_transformer, configs.TINY_ZIMAGE_TRANSFORMER),
        ("vae", backbones.sd_vae, configs.TINY_FLUX_VAE),
    ):
        net = make(config)
        fill_seeded(net)
        net.save_pretrained(here / "z-image-turbo" / part)  # type: ignore[operator]
    prompt = torch.randn(7, 16, generator=torch.Generator().manual_seed(0))
    save_file({"prompt": prompt}, here / "z-image-turbo" / "prompt.safetensors")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))

    def restored(folder: Path) -> tuple[torch.Tensor, WeightStore]:
        monkeypatch.setenv("FACERESTORE_WEIGHTS", str(folder))
        store = WeightStore()
        pipeline = recipes.get("zimage").build(store, device="cpu", dtype="fp32")
        return pipeline.restore_aligned(face, seed=0), store

    before, _ = restored(here)
    done = CliRunner().invoke(app, ["weights", "bundle", "zimage", "-o", str(there)], catch_exceptions=False)
    assert done.exit_code == 0
    here.rename(tmp_path / "gone")
    after, store = restored(there)
    assert torch.equal(after, before)
    found = {name: store.find(name) for name in recipes.get("zimage").weights()}
    assert {name for name, path in found.items() if path.is_relative_to(there)} == {
        name for name in found if name.startswith("z-image-turbo/")
    }
