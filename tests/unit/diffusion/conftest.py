"""Small networks with made weights, the same in every test."""

import pytest
import torch
from torch import nn

from facerestore.diffusion import backbones, configs
from facerestore.weights.seeded import fill_seeded


def seeded(net: nn.Module) -> nn.Module:
    fill_seeded(net)
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def vae() -> nn.Module:
    return seeded(backbones.sd_vae(configs.TINY_SD_VAE))


@pytest.fixture(scope="session")
def taesd() -> nn.Module:
    return seeded(backbones.tiny_vae(configs.TINY_TAESD))


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 64, 48, generator=torch.Generator().manual_seed(0))
