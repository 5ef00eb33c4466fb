"""OMGSR-S, OSEDiff and PiSA-SR against their public code on the same made weights (see data/sd21.md)."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from facerestore.stages.omgsr_s import OMGSRS
from facerestore.stages.osediff import OSEDiff
from tests.made.downloads import Download, restored, write

DATA = Path(__file__).parent / "data" / "sd21.safetensors"


def compare(picture: torch.Tensor, name: str) -> None:
    recorded = load_file(DATA)[name]
    assert recorded.std() > 0.1 and ((recorded > 0) & (recorded < 1)).float().mean() > 0.5
    torch.testing.assert_close(picture[0, :, ::4, ::4], recorded, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "tile", "overlap"), [("omgsr_s", 64, 32), ("omgsr_s_tiled", 8, 4)])
def test_omgsr_equals_the_original(omgsr: OMGSRS, name: str, tile: int, overlap: int) -> None:
    """From the published folders to the picture, in one piece and in tiles."""
    config = replace(omgsr.config, tile=tile, overlap=overlap)
    compare(restored(OMGSRS(omgsr.unet, omgsr.codec, omgsr.prompt, config)), name)


@pytest.fixture(scope="module")
def omgsr(tmp_path_factory: pytest.TempPathFactory) -> OMGSRS:
    return write("omgsr-s", tmp_path_factory.mktemp("download")).restorer()


@pytest.mark.parametrize("name", ["osediff", "osediff-face"])
def test_osediff_equals_the_original(name: str, tmp_path: Path) -> None:
    """From the published pickle to the picture, in one piece and in tiles."""
    stage = write(name, tmp_path).restorer()
    compare(restored(stage), "osediff")
    tiled = OSEDiff(stage.unet, stage.codec, stage.prompt, replace(stage.config, tile=8, overlap=4))
    compare(restored(tiled), "osediff_tiled")


@pytest.fixture(scope="module")
def pisa(tmp_path_factory: pytest.TempPathFactory) -> Download:
    return write("pisa-sr", tmp_path_factory.mktemp("download"))


@pytest.mark.parametrize(("name", "knobs"), [("pisa_sr", (1.0, 1.0)), ("pisa_sr_knobs", (0.8, 1.3))])
def test_pisa_sr_equals_the_original(pisa: Download, name: str, knobs: tuple[float, float]) -> None:
    """From the published pickle to the picture, by one call of the UNet and by two."""
    stage = pisa.restorer(lambda_pix=knobs[0], lambda_sem=knobs[1])
    assert (stage.pixel_unet is None) == (knobs == (1, 1))
    compare(restored(stage), name)
