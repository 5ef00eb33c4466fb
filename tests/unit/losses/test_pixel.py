"""Losses between values at one place."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import GaussianBlur

from facerestore.core.errors import ConfigError, ShapeError
from facerestore.losses.pixel import blurred_mse, charbonnier, l1, lp, mse


def blurred(pred: Tensor, target: Tensor, timestep: int = 650) -> Tensor:
    return blurred_mse(pred, target, torch.full(pred.shape[:1], timestep))


LOSSES = {
    "l1": l1,
    "mse": mse,
    "lp": partial(lp, p=1.5),
    "charbonnier": charbonnier,
    "blurred": blurred,
}


@pytest.mark.parametrize("name", LOSSES)
def test_rules(name, rules):
    rules.hold(LOSSES[name])


@pytest.mark.parametrize("name", LOSSES)
def test_gradients(name, rules):
    rules.gradients(LOSSES[name], side=12)


def test_values():
    pred, target = torch.tensor([[0.5, -1.0], [0.0, 0.0]]), torch.zeros(2, 2)
    assert l1(pred, target).tolist() == [0.75, 0.0]
    assert mse(pred, target).tolist() == [0.625, 0.0]
    assert torch.equal(lp(pred, target, p=1.0), l1(pred, target))
    assert torch.equal(lp(pred, target, p=2.0), mse(pred, target))
    expected = ((0.25 + 1e-6) ** 0.5 + (1 + 1e-6) ** 0.5) / 2 - 1e-3
    assert charbonnier(pred, target).tolist() == pytest.approx([expected, 0.0])


def test_charbonnier_is_a_parabola_near_zero_and_l1_far_from_it():
    zero = torch.zeros(1, 1)
    assert charbonnier(zero + 1e-4, zero, eps=1e-2).item() == pytest.approx(1e-8 / 2e-2, rel=1e-2)
    assert charbonnier(zero + 10, zero).item() == pytest.approx(10 - 1e-3, rel=1e-6)


def test_charbonnier_has_the_gradient_of_basicsr_at_its_eps():
    pred = torch.randn(1, 50, dtype=torch.float64).requires_grad_()
    target = torch.randn(1, 50, dtype=torch.float64)
    (ours,) = torch.autograd.grad(charbonnier(pred, target, eps=1e-6).sum(), pred)
    (theirs,) = torch.autograd.grad(torch.sqrt((pred - target) ** 2 + 1e-12).mean(), pred)
    torch.testing.assert_close(ours, theirs)


def test_losses_of_latents_and_vectors():
    assert mse(torch.ones(2, 4, 3, 3), torch.zeros(2, 4, 3, 3)).tolist() == [1.0, 1.0]
    assert l1(torch.ones(2, 4), torch.zeros(2, 4)).tolist() == [1.0, 1.0]
    with pytest.raises(ShapeError, match="one shape"):
        mse(torch.ones(2), torch.ones(2))


@pytest.mark.parametrize("p", [0.5, float("nan")])
def test_p_is_at_least_one(p):
    with pytest.raises(ConfigError, match="at least 1"):
        lp(torch.ones(1, 1), torch.zeros(1, 1), p=p)


def test_blurred_mse_is_that_of_tadsr():
    """Their training script: a `GaussianBlur` of torchvision for each picture, made of its timestep."""
    generator = torch.Generator().manual_seed(0)
    pred, target = (torch.rand(6, 3, 24, 40, generator=generator) for _ in range(2))
    timesteps = torch.tensor([1, 199, 200, 500, 754, 999])
    expected = []
    for a, b, t in zip(pred, target, timesteps.tolist(), strict=True):
        blur = GaussianBlur(kernel_size=5 + int(t / 200) * 4, sigma=1.0 + t / 200)
        expected.append(functional.mse_loss(blur(a[None]), blur(b[None])))
    ours = blurred_mse(pred, target, timesteps)
    torch.testing.assert_close(ours, torch.stack(expected), atol=1e-6, rtol=1e-5)


def test_later_timesteps_leave_more_detail_free():
    pred, target = torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32)
    curve = torch.cat([blurred(pred, target, timestep) for timestep in (1, 250, 500, 750, 999)])
    assert (curve.diff() < 0).all()
    shifted = blurred(target + 0.1, target, 999)
    assert shifted.item() == pytest.approx(0.01, rel=1e-4)  # of what is coarse, nothing


def test_blurred_mse_needs_a_timestep_each_and_room_for_its_kernel():
    images = torch.rand(2, 3, 16, 16)
    with pytest.raises(ShapeError, match="each of 2 pictures"):
        blurred_mse(images, images, torch.tensor([500]))
    with pytest.raises(ShapeError, match="more than 10 px"):
        blurred_mse(images[..., :10], images[..., :10], torch.tensor([999, 0]))
