"""VSD, CSD, TA-VSD and the second network's loss against public code (see data/score_distillation.md)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from facerestore.losses.score import csd_loss, fake_score_loss, ta_vsd_loss, vsd_loss
from facerestore.weights.seeded import fill_seeded

RECORDED = load_file(Path(__file__).parent / "data" / "score_distillation.safetensors")


class Network(nn.ModuleDict):
    """A convolution whose answer depends on timestep and prompt, called by its name for its weights."""

    def __init__(self, name: str) -> None:
        super().__init__({name: nn.Conv2d(4, 4, 3, padding=1)})
        fill_seeded(self)
        self.name = name

    def forward(self, z: Tensor, timesteps: Tensor, prompt: Tensor) -> Tensor:
        scaled = self[self.name](z) * (1 + timesteps.float().view(-1, 1, 1, 1) / 1000)
        return scaled + 0.3 * prompt.mean((1, 2)).view(-1, 1, 1, 1)


TEACHER, FAKE = Network("teacher"), Network("fake")


def teacher(z_t: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    told = TEACHER(z_t, timesteps, RECORDED["prompt"])
    return told, TEACHER(z_t, timesteps, RECORDED["neg"])


def fake(z_t: Tensor, timesteps: Tensor) -> Tensor:
    return FAKE(z_t, timesteps, RECORDED["prompt"])


@pytest.mark.parametrize("kind", ["vsd", "csd", "ta"])
def test_loss_and_gradient_equal_the_original(kind: str) -> None:
    z = RECORDED["z"].clone().requires_grad_()
    noise, timesteps = RECORDED[f"{kind}_noise"], RECORDED[f"{kind}_timesteps"]
    if kind == "vsd":
        losses = vsd_loss(z, noise, timesteps, teacher=teacher, fake=fake)
    elif kind == "ta":
        losses = ta_vsd_loss(z, noise, timesteps, teacher=teacher, fake=fake)
    else:
        losses = csd_loss(z, noise, timesteps, teacher=teacher)
    losses.mean().backward()
    torch.testing.assert_close(losses.mean().detach(), RECORDED[f"{kind}_loss"], atol=0, rtol=1e-5)
    torch.testing.assert_close(z.grad, RECORDED[f"{kind}_grad"], atol=1e-7, rtol=1e-4)


def test_the_second_networks_loss_equals_the_original() -> None:
    noise, timesteps = RECORDED["diff_noise"], RECORDED["diff_timesteps"]
    losses = fake_score_loss(RECORDED["z"], noise, timesteps, fake=fake)
    torch.testing.assert_close(losses.mean(), RECORDED["diff_loss"], atol=0, rtol=1e-5)
