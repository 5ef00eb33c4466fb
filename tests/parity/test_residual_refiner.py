"""BVI's refiner against its own code on the same made weights (see data/residual_refiner.md)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from facerestore.nets.residual_refiner import ResidualRefiner
from facerestore.weights.seeded import fill_seeded

RECORDED = Path(__file__).parent / "data" / "residual_refiner.safetensors"


@pytest.mark.parametrize("channels", [4, 16])
def test_corrections_equal_the_original(channels: int) -> None:
    net = ResidualRefiner(ResidualRefiner.Config(channels=channels))
    fill_seeded(net)
    generator = torch.Generator().manual_seed(channels)
    z, predicted = (torch.randn(2, channels, 12, 10, generator=generator) for _ in range(2))
    with torch.no_grad():
        correction = net(z, predicted, torch.tensor([500, 37]))
    expected = load_file(RECORDED)[f"correction{channels}"]
    torch.testing.assert_close(correction, expected, atol=1e-6, rtol=0)
