"""Stitched predictions against OSEDiff's own code (see data/latent_tiling.md)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from facerestore.diffusion.latent_tiling import predict_tiled

RECORDED = load_file(Path(__file__).parent / "data" / "latent_tiling.safetensors")


def ramp(x: torch.Tensor) -> torch.Tensor:
    """A network whose answer depends on the place inside the tile."""
    return x * torch.linspace(0, 1, x.shape[3]) + torch.linspace(-1, 1, x.shape[2])[:, None]


@pytest.mark.parametrize("name", RECORDED)
def test_the_stitched_prediction_is_theirs(name: str) -> None:
    size, tile, overlap = name.split("_")
    height, width = map(int, size.split("x"))
    generator = torch.Generator().manual_seed(1000 * height + width)
    z = torch.randn(1, 1, height, width, generator=generator)
    ours = predict_tiled(ramp, z, tile=int(tile), overlap=int(overlap))
    torch.testing.assert_close(ours[0, 0], RECORDED[name], atol=1e-6, rtol=0)
