"""The formulas against the schedulers of diffusers, and what they refuse."""

import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler

from facerestore.core.errors import ShapeError
from facerestore.diffusion import x0
from facerestore.diffusion.schedule import sd_alpha_bar


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    z, out = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return z, out


def test_osediffs_scheduler_step_is_the_noise_formula(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    scheduler = DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        timestep_spacing="trailing",  # puts its one step at 999, where OSEDiff asks for it
    )
    scheduler.set_timesteps(1, device="cpu")
    stepped = scheduler.step(pair[1], 999, pair[0], generator=torch.Generator().manual_seed(0)).prev_sample
    ours = x0.x0_from_eps(*pair, float(sd_alpha_bar()[999]))
    torch.testing.assert_close(ours, stepped, atol=1e-5, rtol=1e-6)


def test_zimages_formula_is_the_euler_step_to_the_last_bit(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=[0.244])
    stepped = scheduler.step(-pair[1], scheduler.timesteps[0], pair[0]).prev_sample
    assert torch.equal(x0.x0_from_zimage(*pair, 0.244), stepped)


def test_one_strength_for_each_image(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    alphas = sd_alpha_bar()[[273, 999]]
    together = x0.x0_from_eps(*pair, alphas.reshape(2, 1, 1, 1))
    for i in range(2):
        one = x0.x0_from_eps(pair[0][i : i + 1], pair[1][i : i + 1], alphas[i])
        assert torch.equal(together[i : i + 1], one)


def test_gradients_pass(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    out = pair[1].clone().requires_grad_()
    x0.x0_from_eps(pair[0], out, 0.25).sum().backward()
    assert out.grad is not None
    torch.testing.assert_close(out.grad, torch.full_like(out, -(0.75**0.5) / 0.5))


@pytest.mark.parametrize(
    "formula",
    [
        lambda z, out: x0.x0_from_eps(z, out, 0.5),
        lambda z, out: x0.x0_from_scaled_residual(z, out, 0.5),
        x0.x0_from_residual,
        x0.x0_direct,
        lambda z, out: x0.x0_from_velocity(z, out, 0.5),
        lambda z, out: x0.x0_from_zimage(z, out, 0.5),
    ],
)
def test_a_prediction_of_another_shape_is_refused(formula: object) -> None:
    with pytest.raises(ShapeError, match="latent's shape"):
        formula(torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 1, 8, 8))  # type: ignore[operator]
