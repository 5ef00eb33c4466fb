"""The discriminator of latents against a public re-trainer of OSDFace (see data/latent_discriminator.md)."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from facerestore.losses.discriminators.latent import LatentDiscriminator
from facerestore.weights.seeded import fill_seeded

RECORDED = load_file(Path(__file__).parent / "data" / "latent_discriminator.safetensors")


def test_logits_equal_the_original_with_and_without_a_prompt() -> None:
    config = LatentDiscriminator.Config(unet="sdxl-turbo/unet", rank=0)
    discriminator = LatentDiscriminator.tiny(config).eval()
    fill_seeded(discriminator.head)
    generator = torch.Generator().manual_seed(0)
    z_t = torch.randn(2, 4, 8, 8, generator=generator)
    prompt = torch.randn(2, 5, 32, generator=generator)
    timesteps = torch.tensor([17, 803])
    with torch.no_grad():
        untold = discriminator.score([discriminator.backbone(z_t, timesteps)])[0]
        told = discriminator.score([discriminator.backbone(z_t, timesteps, prompt)])[0]
    torch.testing.assert_close(untold, RECORDED["logits"], atol=1e-5, rtol=0)
    torch.testing.assert_close(told, RECORDED["told"], atol=1e-5, rtol=0)
