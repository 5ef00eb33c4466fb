"""Schedules against published numbers and against the scheduler objects of diffusers."""

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from facerestore.core.errors import ConfigError
from facerestore.diffusion.schedule import flux_sigma, sd_alpha_bar, shift_sigma, zimage_sigma


@pytest.mark.parametrize(
    ("t", "alpha_bar"),
    [(1, 0.998296), (199, 0.755238), (273, 0.635743), (399, 0.426086), (500, 0.276333), (999, 0.004660)],
)
def test_the_signal_that_each_recipe_finds_at_its_timestep(t: int, alpha_bar: float) -> None:
    assert float(sd_alpha_bar()[t]) == pytest.approx(alpha_bar, abs=1e-6)


def test_the_table_is_that_of_diffusers_to_the_last_bit() -> None:
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    assert sd_alpha_bar().dtype == torch.float32
    assert torch.equal(sd_alpha_bar(), scheduler.alphas_cumprod)


def test_three_readings_of_244() -> None:
    assert zimage_sigma(244) == 0.244
    assert shift_sigma(0.244, 3) == pytest.approx(0.4919, abs=5e-5)
    assert flux_sigma(244) == pytest.approx(0.505112, abs=5e-7)
    assert flux_sigma(295) == pytest.approx(0.569595, abs=5e-7)


def test_a_shift_is_that_of_diffusers() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=[0.244, 0.9])
    ours = torch.tensor([shift_sigma(0.244, 3.0), shift_sigma(0.9, 3.0)])
    torch.testing.assert_close(ours, scheduler.sigmas[:2], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "call", [lambda: flux_sigma(1000), lambda: flux_sigma(-1), lambda: zimage_sigma(1001)]
)
def test_a_timestep_outside_the_schedule_is_refused(call: object) -> None:
    with pytest.raises(ConfigError, match="lies in 0 to"):
        call()  # type: ignore[operator]
