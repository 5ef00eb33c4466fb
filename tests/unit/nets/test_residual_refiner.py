"""BVI's residual noise refiner."""

import math

import pytest
import torch

from facerestore.core.errors import ConfigError
from facerestore.nets.residual_refiner import ResidualRefiner, timestep_code
from facerestore.weights.seeded import fill_seeded


def _inputs(channels: int = 4, count: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    z, predicted = (torch.randn(count, channels, 6, 9, generator=generator) for _ in range(2))
    return z, predicted, torch.tensor([1, 500, 999][:count])


def test_it_has_the_published_size_and_names() -> None:
    state = ResidualRefiner(ResidualRefiner.Config()).state_dict()
    assert len(state) == 24 and sum(tensor.numel() for tensor in state.values()) == 163_524
    layers = {key.rpartition(".")[0] for key in state}
    blocks = {f"block{i}.{j}" for i in (1, 2) for j in (0, 2, 3, 5)}
    assert layers == {"in_proj", "out_proj", "time_mlp.0", "time_mlp.2"} | blocks


@pytest.mark.parametrize("channels", [4, 16])
def test_a_new_one_corrects_nothing(channels: int) -> None:
    z, predicted, timesteps = _inputs(channels)
    net = ResidualRefiner(ResidualRefiner.Config(channels=channels))
    correction = net(z, predicted, timesteps)
    assert correction.shape == z.shape and not correction.any()
    correction.square().sum().backward()
    (predicted + net(z, predicted, timesteps)).sum().backward()
    assert net.out_proj.weight.grad is not None and bool(net.out_proj.weight.grad.any())


def test_it_looks_at_latent_prediction_and_timestep_of_each_picture_alone() -> None:
    net = ResidualRefiner(ResidualRefiner.Config())
    fill_seeded(net)
    z, predicted, timesteps = _inputs()
    with torch.no_grad():
        together = net(z, predicted, timesteps)
        apart = torch.cat([net(z[i : i + 1], predicted[i : i + 1], timesteps[i : i + 1]) for i in range(3)])
        others = (
            net(z + 1, predicted, timesteps),
            net(z, -predicted, timesteps),
            net(z, predicted, timesteps - 1),
        )
    torch.testing.assert_close(together, apart, atol=1e-6, rtol=0)
    assert all((other - together).abs().max() > 1e-4 for other in others)


def test_the_scale_multiplies_the_correction() -> None:
    once, twice = (ResidualRefiner(ResidualRefiner.Config(out_scale=scale)) for scale in (0.05, 0.1))
    for net in (once, twice):
        fill_seeded(net)
    torch.testing.assert_close(twice(*_inputs()), 2 * once(*_inputs()))


def test_the_code_of_a_timestep_has_cosines_before_sines() -> None:
    code = timestep_code(torch.tensor([0, 500]), 64)
    assert torch.equal(code[0], torch.tensor([1.0] * 32 + [0.0] * 32))
    assert code[1, 0].item() == pytest.approx(math.cos(500), abs=1e-5)
    assert code[1, 32].item() == pytest.approx(math.sin(500), abs=1e-5)
    assert code[1, 31].item() == pytest.approx(math.cos(500 / 10000 ** (31 / 32)), abs=1e-5)


@pytest.mark.parametrize("settings", [{"hidden": 60}, {"hidden": 0}, {"channels": 0}])
def test_impossible_sizes_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="steps of 8"):
        ResidualRefiner.Config(**settings)
