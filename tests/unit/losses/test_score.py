"""Score distillation, with networks whose best answer is known: data that are normal about a mean."""

import pytest
import torch
from torch import Tensor, nn

from facerestore.core.errors import ShapeError
from facerestore.diffusion.noising import alpha_bar_at
from facerestore.losses.score import (
    EPS,
    FLOW,
    Network,
    Noising,
    Teacher,
    csd_loss,
    distillation_loss,
    fake_score_loss,
    guided,
    ta_vsd_loss,
    vsd_loss,
)

TIMESTEPS = torch.tensor([900, 300])
SIGMAS = torch.tensor([0.9, 0.3])
KINDS = [(EPS, TIMESTEPS), (FLOW, SIGMAS)]


def latents(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    z, noise = (torch.randn(2, 4, 3, 3, generator=generator, dtype=dtype) for _ in range(2))
    return z, noise


def signal_and_noise(noising: Noising, levels: Tensor) -> tuple[Tensor, Tensor]:
    if noising is FLOW:
        return (1 - levels).view(-1, 1, 1, 1), levels.view(-1, 1, 1, 1)
    alpha = alpha_bar_at(levels).view(-1, 1, 1, 1)
    return alpha.sqrt(), (1 - alpha).sqrt()


def best(noising: Noising, mean: float) -> Network:
    """The prediction that is right on average for data normal about `mean` with variance 1."""

    def network(z_t: Tensor, levels: Tensor) -> Tensor:
        signal, spread = signal_and_noise(noising, levels)
        residual = (z_t - signal * mean) / (signal**2 + spread**2)
        noise = spread * residual
        return noise if noising is EPS else noise - (mean + signal * residual)

    return network


def teacher_of(noising: Noising, told: float, untold: float) -> Teacher:
    with_prompt, without = best(noising, told), best(noising, untold)
    return lambda z_t, levels: (with_prompt(z_t, levels), without(z_t, levels))


@pytest.mark.parametrize(("noising", "levels"), KINDS)
def test_noise_that_is_known_is_taken_out_again(noising: Noising, levels: Tensor) -> None:
    z, noise = latents()
    z_t = noising.noise(z, noise, levels)
    signal, spread = signal_and_noise(noising, levels)
    torch.testing.assert_close(z_t, signal * z + spread * noise)
    clean = noising.clean(z_t, noising.target(z, noise), levels)
    torch.testing.assert_close(clean, z, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("noising", "levels"), KINDS)
def test_networks_that_agree_move_nothing(noising: Noising, levels: Tensor) -> None:
    z, noise = latents()
    z.requires_grad_()
    teacher = teacher_of(noising, 0.5, 0.5)
    losses = vsd_loss(z, noise, levels, teacher=teacher, fake=best(noising, 0.5), noising=noising)
    losses = losses + csd_loss(z, noise, levels, teacher=teacher, noising=noising)
    assert losses.shape == (2,) and losses.max() < 1e-9
    losses.sum().backward()
    assert z.grad is not None and z.grad.abs().max() < 1e-5


@pytest.mark.parametrize(("noising", "levels"), KINDS)
def test_the_gradient_is_that_of_the_distance_of_the_two_distributions(
    noising: Noising, levels: Tensor
) -> None:
    """Finite differences of the divergence of the noised distributions, as the predictions' mean moves.

    Between N(a, 1) and N(b, 1), scaled by s and noised, it is s^2 (a - b)^2 / 2v with v their variance. The
    gradient of the loss is in proportion to it, by a factor of which everything is known.
    """
    z, noise = latents(torch.float64)
    levels = levels.double() if noising is FLOW else levels
    z.requires_grad_()
    fake_mean, real_mean, step = 0.8, -0.4, 1e-4
    teacher = teacher_of(noising, real_mean, real_mean)
    losses = vsd_loss(z, noise, levels, teacher=teacher, fake=best(noising, fake_mean), noising=noising)
    losses.sum().backward()
    assert z.grad is not None
    signal, spread = (each.double() for each in signal_and_noise(noising, levels))
    variance = signal**2 + spread**2

    def divergence(mean: float) -> Tensor:
        return signal**2 * (mean - real_mean) ** 2 / (2 * variance)

    slope = (divergence(fake_mean + step) - divergence(fake_mean - step)) / (2 * step)
    with torch.no_grad():
        z_t = noising.noise(z, noise, levels)
        real = noising.clean(z_t, best(noising, real_mean)(z_t, levels), levels)
        error = (z - real).abs().mean((1, 2, 3), keepdim=True)
    # The clean latents differ by spread^2 / variance (a - b), which is spread^2 / signal^2 of the slope.
    expected = 2 / z[0].numel() * slope * spread**2 / signal**2 / error
    torch.testing.assert_close(z.grad, expected.expand_as(z), atol=1e-7, rtol=1e-3)


def test_following_it_brings_predictions_to_the_teachers_mean() -> None:
    mean = torch.zeros(1, requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([mean], lr=0.1)
    for _ in range(60):
        z = mean + torch.randn(4, 4, 2, 2, generator=generator)
        noise = torch.randn(z.shape, generator=generator)
        timesteps = torch.randint(20, 980, (4,), generator=generator)
        teacher = teacher_of(EPS, 1.5, 1.5)
        loss = vsd_loss(z, noise, timesteps, teacher=teacher, fake=best(EPS, mean.item())).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert mean.item() == pytest.approx(1.5, abs=0.2)


def test_classifier_distillation_goes_where_the_prompt_points() -> None:
    z, noise = latents()
    z.requires_grad_()
    csd_loss(z, noise, TIMESTEPS, teacher=teacher_of(EPS, 1.0, 0.0)).sum().backward()
    assert z.grad is not None and bool((z.grad < 0).all())  # the prompt's mean lies above
    (same,) = torch.autograd.grad(
        vsd_loss(z, noise, TIMESTEPS, teacher=teacher_of(EPS, 1.0, 0.0), fake=best(EPS, 0.0)).sum(), z
    )
    torch.testing.assert_close(same, z.grad)


def test_the_time_aware_teacher_is_asked_at_half_with_growing_guidance() -> None:
    z, noise = latents()
    asked: list[Tensor] = []

    def teacher(z_t: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        asked.append(levels)
        return teacher_of(EPS, 1.0, 0.0)(z_t, levels)

    students = torch.tensor([999, 41])
    losses = ta_vsd_loss(z, noise, students, teacher=teacher, fake=best(EPS, 0.2))
    assert [levels.tolist() for levels in asked] == [[499, 20]]
    plain = vsd_loss(
        z,
        noise,
        torch.tensor([499, 20]),
        teacher=teacher,
        fake=best(EPS, 0.2),
        guidance=torch.tensor([7.5 + 2.495, 7.6]),
    )
    torch.testing.assert_close(losses, plain)


def test_guidance_by_hand() -> None:
    told, untold = torch.full((2, 1, 1, 1), 3.0), torch.full((2, 1, 1, 1), 1.0)
    assert guided(told, untold, 1.0).flatten().tolist() == [3, 3]
    assert guided(told, untold, torch.tensor([0.0, 7.5])).flatten().tolist() == [1, 16]


def test_no_network_receives_a_gradient_but_the_second_in_its_own_loss() -> None:
    z, noise = latents()
    nets = {name: nn.Conv2d(4, 4, 1) for name in ("teacher", "fake")}
    pred = nn.Parameter(z)

    def fake(z_t: Tensor, levels: Tensor) -> Tensor:
        return nets["fake"](z_t)

    def teacher(z_t: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        return nets["teacher"](z_t), z_t

    vsd_loss(pred, noise, TIMESTEPS, teacher=teacher, fake=fake).sum().backward()
    csd_loss(pred, noise, TIMESTEPS, teacher=teacher).sum().backward()
    assert pred.grad is not None and all(p.grad is None for net in nets.values() for p in net.parameters())
    pred.grad = None
    fake_score_loss(pred, noise, TIMESTEPS, fake=fake).sum().backward()
    assert pred.grad is None and nets["fake"].weight.grad is not None and nets["teacher"].weight.grad is None


@pytest.mark.parametrize(("noising", "levels"), KINDS)
def test_the_second_networks_loss_is_zero_where_it_is_right(noising: Noising, levels: Tensor) -> None:
    z, noise = latents()
    right = noising.target(z, noise)
    assert fake_score_loss(z, noise, levels, fake=lambda *_: right, noising=noising).tolist() == [0, 0]
    off = fake_score_loss(z, noise, levels, fake=lambda *_: right + 2, noising=noising)
    assert off.tolist() == pytest.approx([4, 4], rel=1e-6)


@pytest.mark.parametrize(("noising", "levels"), KINDS)
def test_each_latent_counts_alone(noising: Noising, levels: Tensor) -> None:
    z, noise = latents()
    teacher, fake = teacher_of(noising, 1.0, 0.3), best(noising, -0.5)
    for loss in (
        lambda i: vsd_loss(z[i], noise[i], levels[i], teacher=teacher, fake=fake, noising=noising),
        lambda i: csd_loss(z[i], noise[i], levels[i], teacher=teacher, noising=noising),
        lambda i: fake_score_loss(z[i], noise[i], levels[i], fake=fake, noising=noising),
    ):
        torch.testing.assert_close(loss(slice(0, 2)), torch.cat([loss(slice(0, 1)), loss(slice(1, 2))]))


def test_a_prediction_that_the_teacher_finds_right_divides_by_no_zero() -> None:
    z, _ = latents()
    assert distillation_loss(z, z, z).tolist() == [0, 0]
    assert bool(distillation_loss(z, z + 1, z).isfinite().all())


def test_levels_that_do_not_fit_are_refused() -> None:
    z, noise = latents()
    teacher = teacher_of(EPS, 1.0, 0.0)
    with pytest.raises(ShapeError, match="whole timesteps"):
        csd_loss(z, noise, SIGMAS, teacher=teacher)
    with pytest.raises(ShapeError, match="one level"):
        csd_loss(z, noise, TIMESTEPS.repeat(2), teacher=teacher)
    with pytest.raises(ShapeError, match="noise of the shape"):
        csd_loss(z, noise[:1], TIMESTEPS, teacher=teacher)
