"""Adversarial losses, the augmentation before them and their penalty, against public code (see data/)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from facerestore.imaging.range import from_signed
from facerestore.losses.adversarial import discriminator_loss, generator_loss, r1_penalty
from facerestore.losses.diffaugment import augment
from facerestore.weights.seeded import fill_seeded

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [("hinge", "hinge"), ("non_saturating", "vanilla"), ("non_saturating", "wgan_softplus")],
)
def test_losses_equal_those_of_basicsr(kind: Any, theirs: str) -> None:
    generator = torch.Generator().manual_seed(6)
    real, fake = (torch.randn(3, 1, 5, 6, generator=generator) * 2 for _ in range(2))
    for_generator, for_discriminator = load_file(DATA / "gan_losses.safetensors")[f"{kind}_{theirs}"]
    torch.testing.assert_close(generator_loss([fake], kind).mean(), for_generator, atol=1e-6, rtol=0)
    ours = discriminator_loss([real], [fake], kind).mean()
    torch.testing.assert_close(ours, for_discriminator, atol=1e-6, rtol=0)


def test_r1_equals_that_of_basicsr() -> None:
    net, generator = nn.Conv2d(3, 1, 5), torch.Generator().manual_seed(6)
    fill_seeded(net)
    for _ in range(2):  # the logits of the test above were drawn first
        torch.randn(3, 1, 5, 6, generator=generator)
    images = torch.rand(3, 3, 5, 5, generator=generator).requires_grad_()
    penalty = r1_penalty([torch.sigmoid(net(images))], [images]).mean()
    torch.testing.assert_close(
        penalty, load_file(DATA / "gan_losses.safetensors")["r1"], atol=1e-7, rtol=1e-5
    )


def test_augmented_pictures_equal_the_original() -> None:
    images = torch.rand(4, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    generators = [torch.Generator().manual_seed(10 + i) for i in range(4)]
    official = from_signed(load_file(DATA / "diffaugment.safetensors")["augmented"])
    torch.testing.assert_close(augment(images, generators), official, atol=1e-6, rtol=0)
