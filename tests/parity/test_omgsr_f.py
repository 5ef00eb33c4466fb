"""OMGSR-F against its public code on the same made weights (see data/omgsr_f.md)."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from facerestore.stages.omgsr_f import OMGSRF, FluxPrompt
from tests.made.downloads import picture, restored, write

DATA = Path(__file__).parent / "data" / "omgsr_f.safetensors"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> OMGSRF:
    return write("omgsr-f", tmp_path_factory.mktemp("download")).restorer()


@pytest.mark.parametrize(
    ("name", "width", "process_px"),
    [("omgsr_f", 96, 96), ("omgsr_f_wide", 160, 160), ("omgsr_f_tiled", 160, 64)],
)
def test_the_picture_is_that_of_the_original(stage: OMGSRF, name: str, width: int, process_px: int) -> None:
    """From the published folders to the picture: a square, a wide one, and in tiles."""
    config = replace(stage.config, tile=process_px // 8, overlap=process_px // 16)
    prompt = FluxPrompt(tokens=stage.tokens, pooled=stage.pooled)
    out = restored(OMGSRF(stage.transformer, stage.codec, prompt, config), picture(width))
    recorded = load_file(DATA)[name]
    assert recorded.std() > 0.2 and ((recorded > 0) & (recorded < 1)).float().mean() > 0.9
    torch.testing.assert_close(out[0, :, ::4, ::4], recorded, atol=1e-5, rtol=0)
