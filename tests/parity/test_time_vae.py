"""TADSR's encoder at full width against its own code on the same made weights (see data/time_vae.md)."""

import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from facerestore.diffusion import backbones
from facerestore.diffusion.configs import SD_VAE
from facerestore.diffusion.time_vae import encode_at, fold_time
from facerestore.weights.seeded import fill_seeded

TIMESTEPS = (500, 37)
MOMENTS = load_file(Path(__file__).parent / "data" / "time_vae.safetensors")["moments"]


@pytest.fixture(scope="module")
def vae() -> Any:
    """The encoder alone has memory."""
    with torch.device("meta"):
        vae: Any = backbones.time_vae(SD_VAE).eval()
    vae.encoder.to_empty(device="cpu")
    vae.quant_conv.to_empty(device="cpu")
    own = {key: tensor for key, tensor in vae.state_dict().items() if not tensor.is_meta}
    fill_seeded(types.SimpleNamespace(state_dict=lambda: own))  # type: ignore[arg-type]
    for key, tensor in own.items():
        if "norm" in key and key.endswith("weight"):
            tensor.add_(1)
    return vae


def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_moments_equal_the_original_at_both_timesteps_and_after_folding(vae: Any) -> None:
    with torch.no_grad():
        moments = encode_at(vae, pictures(), torch.tensor(TIMESTEPS))
        torch.testing.assert_close(moments, MOMENTS, atol=1e-5, rtol=0)
        fold_time(vae, TIMESTEPS[0])
        folded = vae.encode(pictures()).latent_dist.parameters
    torch.testing.assert_close(folded[:1], MOMENTS[:1], atol=2e-5, rtol=0)
    assert (folded[1] - MOMENTS[1]).abs().mean() > 1e-2
