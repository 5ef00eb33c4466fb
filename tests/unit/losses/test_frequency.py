"""Losses that see detail alone, and the cap of a correction."""

import pytest
import torch

from facerestore.core.errors import ConfigError, ShapeError
from facerestore.losses.correction import ratio_cap
from facerestore.losses.frequency import (
    gradient_charbonnier,
    high_frequency_charbonnier,
    wavelet_high_frequency,
)
from facerestore.losses.pixel import charbonnier

LOSSES = [wavelet_high_frequency, high_frequency_charbonnier, gradient_charbonnier]


@pytest.mark.parametrize("loss", LOSSES)
def test_rules(loss, rules):
    rules.hold(loss)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients(loss, rules):
    rules.gradients(loss)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_shift_of_all_values_is_no_detail(loss):
    images = torch.rand(1, 3, 16, 16)
    assert loss(images + 0.2, images).item() < 1e-6


def test_wavelet_loss_is_blind_to_the_low_band_and_weighs_every_high_one():
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(1, 1, 4, 4)
    zero = torch.zeros_like(checks)
    assert wavelet_high_frequency(checks, zero).item() == pytest.approx(2 / 3)  # 2 in one of three bands
    blocks = torch.rand(1, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert wavelet_high_frequency(blocks, zero).item() == 0
    with pytest.raises(ShapeError, match="even"):
        wavelet_high_frequency(torch.rand(1, 3, 7, 8), torch.rand(1, 3, 7, 8))


def test_high_frequencies_are_what_a_blur_of_two_pixels_takes_away():
    checks = torch.tensor([[0.5, -0.5], [-0.5, 0.5]]).repeat(1, 1, 16, 16)
    zero = torch.zeros_like(checks)
    torch.testing.assert_close(
        high_frequency_charbonnier(checks, zero), charbonnier(checks, zero), atol=1e-4, rtol=0
    )
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    inside = high_frequency_charbonnier(ramp, torch.zeros_like(ramp)).item()
    assert inside < 0.01 * charbonnier(ramp, torch.zeros_like(ramp)).item()


def test_gradients_are_differences_of_neighbours_both_ways():
    ramp = torch.linspace(0, 1.5, 16).expand(1, 1, 16, 16)
    zero = torch.zeros_like(ramp)
    step = charbonnier(torch.full((1, 1), 0.1), torch.zeros(1, 1)).item()
    assert gradient_charbonnier(ramp, zero).item() == pytest.approx(step / 2, rel=1e-4)
    assert gradient_charbonnier(ramp.mT, zero).item() == pytest.approx(step / 2, rel=1e-4)


def test_a_correction_is_free_up_to_its_cap():
    predicted = torch.randn(4, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([0.0, 0.09, 0.2, 1.1])
    correction = predicted.roll(1, 3) * shares[:, None, None, None]
    found = ratio_cap(correction, predicted)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 0.01, 1.0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(ratio_cap(correction, predicted, cap=0.6)[3], torch.tensor(0.25))


def test_a_cap_pulls_the_correction_and_leaves_what_is_corrected():
    predicted = torch.randn(2, 4, 5, 5).requires_grad_()
    correction = predicted.detach().flip(2).clone().requires_grad_()
    ratio_cap(correction, predicted).sum().backward()
    assert predicted.grad is None
    assert correction.grad is not None
    towards = torch.cosine_similarity(correction.grad.flatten(1), correction.flatten(1))
    torch.testing.assert_close(towards, torch.ones(2))


def test_a_cap_of_zeros_is_finite_and_differentiable():
    correction = torch.zeros(1, 4, 3, 3).requires_grad_()
    ratio_cap(correction, torch.zeros(1, 4, 3, 3)).sum().backward()
    assert correction.grad is not None and correction.grad.abs().max() == 0
    inputs = torch.randn(2, 3, 2, 2, dtype=torch.float64).requires_grad_()
    fixed = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda c: ratio_cap(c, fixed), (inputs,))


def test_a_cap_is_above_zero_and_shapes_agree():
    with pytest.raises(ConfigError, match="above 0"):
        ratio_cap(torch.ones(1, 1), torch.ones(1, 1), cap=0)
    with pytest.raises(ShapeError):
        ratio_cap(torch.ones(1, 2), torch.ones(1, 1))
