"""The first half of a diffusion UNet."""

from typing import Any

import pytest
import torch

from facerestore.diffusion.backbones import sd_unet
from facerestore.diffusion.configs import TINY_SDXL_UNET, TINY_UNET
from facerestore.diffusion.half_unet import HalfUNet
from facerestore.weights.seeded import fill_seeded

TIMESTEPS = torch.tensor([10, 800])


@pytest.mark.parametrize("config", [TINY_UNET, TINY_SDXL_UNET], ids=["sd", "sdxl"])
def test_it_says_what_the_middle_of_the_whole_unet_says(config: dict[str, Any]) -> None:
    whole: Any = sd_unet(config).eval()
    fill_seeded(whole)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 4, 8, 6, generator=generator)
    prompt = torch.randn(2, 5, 32, generator=generator)
    sizes = torch.tensor([[64.0, 48.0, 0.0, 0.0, 64.0, 48.0]]).repeat(2, 1)
    seen: list[torch.Tensor] = []
    hook = whole.mid_block.register_forward_hook(lambda *args: seen.append(args[2]))
    with torch.no_grad():
        told = {"text_embeds": torch.zeros(2, 32), "time_ids": sizes}
        whole(z, TIMESTEPS, prompt, added_cond_kwargs=told)
        hook.remove()
        parameters = sum(tensor.numel() for tensor in whole.parameters())
        half = HalfUNet(whole)
        assert torch.equal(half(z, TIMESTEPS, prompt), seen[0])
        zeros = half(z, TIMESTEPS, torch.zeros(1, 77, 32))
        assert torch.equal(half(z, TIMESTEPS), zeros) and not torch.equal(zeros, seen[0])
    assert sum(tensor.numel() for tensor in half.parameters()) < 0.6 * parameters
    assert seen[0].shape[1] == half.width == 64 and half.prompt_width == 32


def test_it_computes_in_the_dtype_of_its_weights() -> None:
    half = HalfUNet(sd_unet(TINY_UNET)).bfloat16()
    with torch.no_grad():
        assert half(torch.randn(2, 4, 8, 8), TIMESTEPS, torch.randn(1, 3, 32)).dtype == torch.bfloat16
