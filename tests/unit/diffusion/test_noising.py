"""Noise put onto clean latents."""

import diffusers
import pytest
import torch

from facerestore.core.errors import ShapeError
from facerestore.diffusion.noising import alpha_bar_at, noised, noised_flow

TIMESTEPS = torch.tensor([0, 399, 999])


def latents() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(3, 4, 2, 5, generator=generator) for _ in range(2))
    return clean, noise


def test_stable_diffusions_noise_is_that_of_diffusers() -> None:
    clean, noise = latents()
    scheduler = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    expected = scheduler.add_noise(clean, noise, TIMESTEPS)  # type: ignore[arg-type]
    torch.testing.assert_close(noised(clean, noise, alpha_bar_at(TIMESTEPS)), expected, atol=1e-6, rtol=0)


def test_flow_is_a_straight_line() -> None:
    clean, noise = latents()
    assert torch.equal(noised_flow(clean, noise, 0.0), clean)
    assert torch.equal(noised_flow(clean, noise, 1.0), noise)
    middle = noised_flow(clean, noise, torch.tensor([0.5, 0.0, 1.0]))
    torch.testing.assert_close(middle, torch.stack([(clean[0] + noise[0]) / 2, clean[1], noise[2]]))


def test_half_precision_keeps_a_little_noise() -> None:
    clean, noise = (each.bfloat16() for each in latents())
    little = noised(clean, noise, alpha_bar_at(torch.tensor([0, 0, 0])))
    assert little.dtype == torch.float32
    assert (little - clean.float() * 0.99957).std() > 0.025


def test_what_does_not_fit_is_refused() -> None:
    clean, noise = latents()
    with pytest.raises(ShapeError, match="whole timesteps"):
        alpha_bar_at(torch.tensor([0.5]))
    with pytest.raises(ShapeError, match="whole timesteps"):
        alpha_bar_at(torch.tensor(5))
    with pytest.raises(ShapeError, match="noise of the shape"):
        noised(clean, noise[:, :2], 0.5)
    with pytest.raises(ShapeError, match="one for each of 3"):
        noised_flow(clean, noise, torch.tensor([0.5, 0.5]))
