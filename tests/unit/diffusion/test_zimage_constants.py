"""Folding a prompt and a noise level into Z-Image's transformer: the prediction stays, some cost goes."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from facerestore.core.errors import ShapeError
from facerestore.diffusion import backbones
from facerestore.diffusion.configs import TINY_ZIMAGE_TRANSFORMER
from facerestore.diffusion.zimage_constants import fold_constants
from facerestore.weights.seeded import fill_seeded

SIGMA = 0.244


def _transformer(**changes: Any) -> nn.Module:
    """A network in which everything matters: norms near 1 instead of near 0."""
    net = backbones.zimage_transformer(TINY_ZIMAGE_TRANSFORMER | changes).eval().requires_grad_(False)
    fill_seeded(net)
    for name, parameter in net.named_parameters():
        if "norm" in name or name == "cap_embedder.0.weight":
            parameter += 1
    return net


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _predict(net: nn.Module, z: torch.Tensor, prompt: torch.Tensor, sigma: float = SIGMA) -> torch.Tensor:
    """What diffusers' own forward says."""
    t = torch.full((len(z),), 1 - sigma)
    with torch.no_grad():
        frames = net(list(z.unsqueeze(2)), t, [prompt] * len(z), return_dict=False)[0]
    return torch.stack(frames).squeeze(2)


# Tokens that fill a multiple of 32 and that do not, of the picture (8 x 16 cells: 32) and of the prompt.
@pytest.mark.parametrize(("height", "width"), [(8, 16), (10, 18), (2, 2)])
@pytest.mark.parametrize("tokens", [1, 7, 32, 33])
def test_the_prediction_stays(height: int, width: int, tokens: int) -> None:
    net, z, prompt = _transformer(), _noise(2, 16, height, width), _noise(tokens, 16, seed=1)
    expected = _predict(net, z, prompt)
    torch.testing.assert_close(fold_constants(net, prompt, SIGMA)(z), expected, atol=1e-5, rtol=0)
    assert expected.abs().mean() > 0.1


def test_the_prediction_stays_at_more_layers_and_another_noise_level() -> None:
    net = _transformer(n_layers=6, n_refiner_layers=2, dim=64, n_heads=2, n_kv_heads=2, axes_dims=(16, 8, 8))
    z, prompt = _noise(1, 16, 16, 16), _noise(9, 16, seed=1)
    expected = _predict(net, z, prompt, sigma=0.4919)
    torch.testing.assert_close(fold_constants(net, prompt, 0.4919)(z), expected, atol=1e-5, rtol=0)


def test_prompt_and_noise_level_are_really_folded_in() -> None:
    z, prompt = _noise(1, 16, 8, 8), _noise(7, 16, seed=1)
    folded = fold_constants(_transformer(), prompt, SIGMA)(z)
    for other in (
        fold_constants(_transformer(), prompt, 0.5),
        fold_constants(_transformer(), prompt.flip(0), SIGMA),
    ):
        assert (other(z) - folded).abs().max() > 1e-2


def test_in_bf16_the_fold_is_at_least_as_close_to_float32() -> None:
    net, z, prompt = _transformer(), _noise(4, 16, 16, 16), _noise(7, 16, seed=1)
    exact = _predict(net, z, prompt)
    half = copy.deepcopy(net).bfloat16()
    plain = _predict(half, z.bfloat16(), prompt.bfloat16()).float()
    folded = fold_constants(half, prompt, SIGMA)(z.bfloat16())
    assert folded.dtype == torch.bfloat16
    assert (folded.float() - exact).abs().mean() < 1.05 * (plain - exact).abs().mean()


def test_what_never_changes_is_gone() -> None:
    net = _transformer()
    before = sum(p.numel() for p in net.parameters())
    gone = ("t_embedder", "cap_embedder", "cap_pad_token", "context_refiner", "adaLN_modulation")
    expected = sum(p.numel() for name, p in net.named_parameters() if any(part in name for part in gone))
    folded = fold_constants(net, _noise(7, 16), SIGMA)
    assert before - sum(p.numel() for p in folded.parameters()) == expected > 0
    assert not [key for key in folded.state_dict() if any(part in key for part in gone)]


def test_gradients_reach_the_latent() -> None:
    z = _noise(1, 16, 8, 8).requires_grad_()
    fold_constants(_transformer(), _noise(7, 16), SIGMA)(z).square().sum().backward()
    assert z.grad is not None and bool((z.grad.abs() > 0).all())


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ShapeError, match=r"\(L,16\)"):
        fold_constants(_transformer(), _noise(7, 17), SIGMA)
    with pytest.raises(ShapeError, match="L >= 1"):
        fold_constants(_transformer(), _noise(0, 16), SIGMA)
    folded = fold_constants(_transformer(axes_lens=(256, 8, 4)), _noise(7, 16), SIGMA)
    with pytest.raises(ShapeError, match="even"):
        folded(_noise(1, 16, 7, 8))
    with pytest.raises(ShapeError, match="at most 16 x 8"):
        folded(_noise(1, 16, 16, 10))
