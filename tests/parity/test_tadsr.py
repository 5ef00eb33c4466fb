"""TADSR, and BVI on top of it, against their public code on the same made weights (see data/tadsr.md)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from facerestore.core.errors import KeyMismatch
from facerestore.weights.convert import convert
from tests.made.downloads import Download, restored, write

DATA = Path(__file__).parent / "data" / "tadsr.safetensors"


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Download]:
    names = {"tadsr": "tadsr", "bvi": "ntire2026/bvi"}
    return {short: write(name, tmp_path_factory.mktemp(short)) for short, name in names.items()}


def given(download: Download, **weights: Path) -> Download:
    """The same with other files."""
    other = {key.replace("_", "/"): path for key, path in weights.items()}
    return Download(download.recipe, download.weights | other)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("tadsr_500", {}),
        ("tadsr_37", {"timestep": 37}),
        ("tadsr_tiled", {"overlap": 4, "tile": 8}),
        ("bvi_500", {}),
        ("bvi_tiled", {"overlap": 4, "tile": 8}),
    ],
)
def test_pictures_equal_the_original(
    downloads: dict[str, Download], name: str, settings: dict[str, Any]
) -> None:
    """From the published files to the picture, in one piece and in tiles."""
    recorded = load_file(DATA)[name]
    assert recorded.std() > 0.1 and ((recorded > 0) & (recorded < 1)).float().mean() > 0.5
    picture = restored(downloads[name.partition("_")[0]].restorer(**settings))
    torch.testing.assert_close(picture[0, :, ::4, ::4], recorded, atol=2e-5, rtol=0)


def test_the_published_pickle_and_what_import_makes_of_it_are_the_same(
    downloads: dict[str, Download], tmp_path: Path
) -> None:
    """BVI's holds a network more; TADSR's part of it is left to the refiner, or dropped."""
    bvi = downloads["bvi"]
    source, weights = bvi.weights["refiner"], tmp_path / "weights.safetensors"
    refiner = tmp_path / "refiner.safetensors"
    convert(source, weights, drop=["noise_refiner"])
    convert(source, refiner, take="noise_refiner")
    expected = restored(bvi.restorer())
    imported = given(bvi, tadsr_weights=weights, refiner=refiner)
    assert torch.equal(restored(imported.restorer()), expected)
    plain = given(downloads["tadsr"], tadsr_weights=weights)
    assert torch.equal(restored(plain.restorer()), restored(downloads["tadsr"].restorer()))
    assert (restored(imported.restorer(lora_scale=1.0)) - expected).abs().max() > 1e-2


def test_a_file_that_is_not_whole_or_holds_more_is_refused(
    downloads: dict[str, Download], tmp_path: Path
) -> None:
    tadsr, path = downloads["tadsr"], tmp_path / "other.safetensors"
    convert(tadsr.weights["tadsr"] / "tadsr.pkl", tmp_path / "whole.safetensors")
    whole = load_file(tmp_path / "whole.safetensors")

    def refused(state: dict[str, torch.Tensor], words: str) -> None:
        save_file(state, path)
        with pytest.raises(KeyMismatch, match=words):
            given(tadsr, tadsr_weights=path).load()

    refused({k: v for k, v in whole.items() if ".time_emb" not in k}, "24 missing|missing.*time_emb")
    refused({k: v for k, v in whole.items() if "default_decoder" not in k}, "unet adapter default_decoder")
    refused({k: v for k, v in whole.items() if k.startswith("unet.")}, "1 missing .vae")
    with pytest.raises(KeyMismatch, match="unexpected"):  # where no refiner takes it, it would be lost
        given(tadsr, tadsr_weights=downloads["bvi"].weights["refiner"]).load()
