"""Folded upsampling gives what diffusers' module gives, with 4/9 of the arithmetic."""

import copy
from typing import Any

import pytest
import torch
from diffusers.models.upsampling import Upsample2D
from torch.utils.flop_counter import FlopCounterMode

from facerestore.diffusion import backbones
from facerestore.diffusion.configs import TINY_FLUX_VAE, TINY_SD_VAE
from facerestore.diffusion.upsampling import FoldedUpsample, fold_upsampling
from facerestore.weights.seeded import fill_seeded


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def _upsample(channels: int, outputs: int) -> Any:
    net = Upsample2D(channels, use_conv=True, out_channels=outputs)
    fill_seeded(net)
    return net.requires_grad_(False)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5), (4, 4), (7, 3)])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_it_equals_doubling_and_convolving(height: int, width: int, memory: torch.memory_format) -> None:
    plain, x = _upsample(6, 5), _noise(2, 6, height, width).contiguous(memory_format=memory)
    folded = FoldedUpsample(plain).to(memory_format=memory)
    out = folded(x)
    torch.testing.assert_close(out, plain(x), atol=1e-5, rtol=0)
    assert out.shape == (2, 5, 2 * height, 2 * width)
    if height > 1 and width > 1:
        assert out.is_contiguous(memory_format=memory)


def test_it_costs_four_ninths() -> None:
    plain, x = _upsample(8, 8), _noise(1, 8, 64, 64)
    folded = FoldedUpsample(plain)
    with FlopCounterMode(display=False) as before:
        plain(x)
    with FlopCounterMode(display=False) as after:
        folded(x)
    assert after.get_total_flops() / before.get_total_flops() == pytest.approx(4 / 9 * (65 / 64) ** 2)


@pytest.mark.parametrize("config", [TINY_SD_VAE, TINY_FLUX_VAE])
def test_a_decoder_stays_what_it_was_and_gradients_pass(config: dict[str, Any]) -> None:
    vae: Any = backbones.sd_vae(config).eval().requires_grad_(False)
    fill_seeded(vae)
    folded = copy.deepcopy(vae)
    fold_upsampling(folded)
    z = _noise(2, config["latent_channels"], 6, 10).requires_grad_()
    torch.testing.assert_close(folded.decode(z).sample, vae.decode(z).sample, atol=1e-5, rtol=0)
    assert sum(isinstance(module, FoldedUpsample) for module in folded.modules()) == 3
    assert not any(type(module).__name__ == "Upsample2D" for module in folded.modules())
    assert folded.state_dict().keys() == vae.state_dict().keys()
    for tensor in vae.state_dict().values():
        tensor.mul_(0.9)
    folded.load_state_dict(vae.state_dict())
    torch.testing.assert_close(folded.decode(z).sample, vae.decode(z).sample, atol=1e-5, rtol=0)
    folded.decode(z).sample.sum().backward()
    assert z.grad is not None and bool(z.grad.abs().sum() > 0)


def test_other_forms_are_left_alone() -> None:
    forms = torch.nn.Sequential(
        Upsample2D(4, use_conv=False),
        Upsample2D(4, use_conv_transpose=True),
        Upsample2D(4, use_conv=True, norm_type="ln_norm", eps=1e-5, elementwise_affine=True),
        Upsample2D(4, use_conv=True, interpolate=False),
    )
    fold_upsampling(forms)
    assert all(type(module) is Upsample2D for module in forms)
