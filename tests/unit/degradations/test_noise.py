"""Noise: its strength, its shape, its colour, and that it follows from a generator alone."""

import pytest
import torch
from scipy import stats

from facerestore.core.errors import ShapeError
from facerestore.degradations.noise import gaussian_noise, poisson_counts, poisson_noise


def dice(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_gaussian_noise_has_the_deviation_asked_for_and_grey_noise_no_colour() -> None:
    noise = (
        gaussian_noise(torch.zeros(3, 3, 200, 200), [5, 20, 20], [False, False, True], dice(0, 1, 2)) * 255
    )
    assert noise.std((1, 2, 3)).tolist() == pytest.approx([5, 20, 20], rel=0.02)
    assert noise.mean((1, 2, 3)).abs().max() < 0.4
    assert torch.equal(noise[2, 0], noise[2, 1]) and torch.equal(noise[2, 0], noise[2, 2])
    assert abs(float(torch.corrcoef(noise[1].flatten(1))[0, 1])) < 0.02


@pytest.mark.parametrize("make", [gaussian_noise, poisson_noise])
def test_a_picture_has_its_own_noise_in_any_batch(make, portrait: torch.Tensor) -> None:
    batch = torch.cat([portrait, portrait.flip(3), portrait * 0.2])
    together = make(batch, [3.0, 2.0, 1.0], [True, False, True], dice(0, 1, 2))
    for i in range(3):
        alone = make(batch[i : i + 1], [3.0 - i], [i != 1], dice(i))
        assert torch.equal(alone[0], together[i])


def test_poisson_noise_is_that_of_counting() -> None:
    """White is 256 counts where all 256 values occur, 4 where three do."""
    ramp = torch.arange(256).div(255).view(1, 1, 256, 1).expand(1, 3, 256, 3000)
    noise = poisson_noise(ramp, [1.0], [False], dice(0))[0]
    torch.testing.assert_close(noise.var((0, 2)) * 256, torch.arange(256) / 255, atol=1e-3, rtol=0.06)
    assert noise.mean((0, 2)).abs().max() < 4e-3
    three = torch.tensor([0.0, 0.2, 0.8]).view(1, 1, 3, 1).expand(1, 3, 3, 40000)
    noise = poisson_noise(three, [0.5], [False], dice(0))[0]
    assert (noise.var((0, 2)) * 4 * 4).tolist() == pytest.approx([0, 0.2, 0.8], rel=0.02)


def test_grey_poisson_noise_follows_the_luma(portrait: torch.Tensor) -> None:
    noise = poisson_noise(portrait, [1.0], [True], dice(0))[0]
    assert torch.equal(noise[0], noise[1]) and torch.equal(noise[0], noise[2])
    assert noise.std() > 0.01


@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0, 3.9, 4.0, 7.5, 20.0, 63.0, 255.0])
def test_counts_are_distributed_as_poisson_variables(rate: float) -> None:
    deviates = torch.special.ndtri((torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000).float()
    counts = poisson_counts(torch.full_like(deviates, rate), deviates)
    assert (counts.diff() >= 0).all()  # the inverse of a cumulative distribution
    reached = torch.arange(int(rate + 6 * rate**0.5) + 3)
    ours = torch.searchsorted(counts, reached + 0.5).double() / 200_000
    expected = torch.from_numpy(stats.poisson.cdf(reached.numpy(), rate))
    assert float((ours - expected).abs().max()) < 4e-4


def test_one_value_for_each_picture() -> None:
    with pytest.raises(ShapeError, match="2 values"):
        gaussian_noise(torch.zeros(2, 3, 8, 8), [1.0], [False, False], dice(0, 1))
    with pytest.raises(ShapeError, match="2 values"):
        poisson_noise(torch.zeros(2, 3, 8, 8), [1.0, 1.0], [False, False], dice(0))
