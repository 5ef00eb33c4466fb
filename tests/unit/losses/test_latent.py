"""Losses of latents."""

from typing import Any

import pytest
import torch

from facerestore.core.errors import ShapeError
from facerestore.losses.latent import latent_mse, lrr, lrr_flow


def latents(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    z_lq, z_hq, noise = (torch.randn(3, 4, 2, 5, generator=generator, dtype=dtype) for _ in range(3))
    return z_lq, z_hq, noise


def test_equal_latents_cost_nothing_and_each_counts_alone() -> None:
    z, other, _ = latents()
    assert latent_mse(z, z).tolist() == [0, 0, 0]
    assert latent_mse(z, z + 2).tolist() == pytest.approx([4, 4, 4], rel=1e-6)
    alone = [latent_mse(z[i : i + 1], other[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(latent_mse(z, other), torch.cat(alone))


def test_refinement_is_zero_at_the_noised_clean_latent() -> None:
    _, z_hq, noise = latents()
    assert lrr(0.8 * z_hq + 0.6 * noise, z_hq, noise, 0.64).max() < 1e-12
    assert lrr_flow(0.7 * z_hq + 0.3 * noise, z_hq, noise, 0.3).max() < 1e-12


def test_levels_may_differ_from_latent_to_latent() -> None:
    z_lq, z_hq, noise = latents()
    levels = torch.tensor([0.1, 0.5, 0.9])
    for loss in (lrr, lrr_flow):
        alone = [loss(z_lq[i : i + 1], z_hq[i : i + 1], noise[i : i + 1], float(levels[i])) for i in range(3)]
        torch.testing.assert_close(loss(z_lq, z_hq, noise, levels), torch.cat(alone))


@pytest.mark.parametrize("loss", [lrr, lrr_flow])
def test_gradients_reach_the_degraded_latent_alone(loss: Any) -> None:
    z_lq, z_hq, noise = (each.requires_grad_() for each in latents(torch.float64))
    assert torch.autograd.gradcheck(lambda x: loss(x, z_hq.detach(), noise.detach(), 0.4), z_lq)
    loss(z_lq, z_hq, noise.detach(), 0.4).sum().backward()
    assert z_lq.grad is not None and z_hq.grad is None


def test_other_shapes_are_refused() -> None:
    z_lq, z_hq, noise = latents()
    with pytest.raises(ShapeError, match="two latents"):
        latent_mse(z_lq, z_hq[:2])
    with pytest.raises(ShapeError, match="noise of the shape"):
        lrr(z_lq, z_hq, noise[:2], 0.5)
    with pytest.raises(ShapeError, match="one level"):
        lrr(z_lq, z_hq, noise, torch.tensor([0.5, 0.5]))
