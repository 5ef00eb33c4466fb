"""What must hold for every latent: formulas undo what made the latent, paddings are undone, tiles cover."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from facerestore.core.seeding import generator
from facerestore.diffusion.latent_tiling import predict_tiled, tile_starts
from facerestore.diffusion.schedule import flux_sigma, sd_alpha_bar, shift_sigma
from facerestore.diffusion.vae_tiling import spans
from facerestore.diffusion.x0 import (
    x0_direct,
    x0_from_eps,
    x0_from_residual,
    x0_from_scaled_residual,
    x0_from_velocity,
    x0_from_zimage,
)
from facerestore.imaging.pad import cut, pad_to_multiple

seeds = st.integers(0, 10_000)
sigmas = st.floats(0, 1)
timesteps = st.integers(0, 999)


def _pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A clean latent and noise, float64 (2,4,5,3)."""
    draw = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 2, 4, 5, 3, generator=draw, dtype=torch.float64)
    return clean, noise


def _close(out: torch.Tensor, clean: torch.Tensor, atol: float = 1e-5) -> None:
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, clean.float(), atol=atol, rtol=0)


@given(seeds, timesteps)
def test_noise_prediction(seed: int, t: int) -> None:
    clean, noise = _pair(seed)
    alpha_bar = float(sd_alpha_bar()[t])
    z = math.sqrt(alpha_bar) * clean + math.sqrt(1 - alpha_bar) * noise
    _close(x0_from_eps(z, noise, alpha_bar), clean)
    _close(x0_from_eps(z, noise, sd_alpha_bar()[t]), clean)


@given(seeds, timesteps)
def test_scaled_residual(seed: int, t: int) -> None:
    clean, noise = _pair(seed)
    alpha_bar = float(sd_alpha_bar()[t])
    _close(x0_from_scaled_residual(math.sqrt(alpha_bar) * (clean + noise), noise, alpha_bar), clean)


@given(seeds)
def test_residual_and_direct(seed: int) -> None:
    clean, noise = _pair(seed)
    _close(x0_from_residual(clean + noise, noise), clean)
    _close(x0_direct(noise, clean), clean)


@given(seeds, sigmas)
def test_flow_signs(seed: int, sigma: float) -> None:
    """FLUX says noise minus clean, Z-Image's raw output clean minus noise."""
    clean, noise = _pair(seed)
    z = (1 - sigma) * clean + sigma * noise
    _close(x0_from_velocity(z, noise - clean, sigma), clean)
    _close(x0_from_zimage(z, clean - noise, sigma), clean)


@given(seeds, sigmas)
def test_a_network_that_says_nothing_leaves_the_latent(seed: int, sigma: float) -> None:
    z = _pair(seed)[0].float()
    assert torch.equal(x0_from_zimage(z, torch.zeros_like(z), sigma), z)
    assert torch.equal(x0_from_velocity(z, torch.zeros_like(z), sigma), z)


@given(sigmas, st.floats(0.1, 10))
def test_a_shift_and_its_inverse(sigma: float, shift: float) -> None:
    assert abs(shift_sigma(shift_sigma(sigma, shift), 1 / shift) - sigma) < 1e-9
    assert shift_sigma(0, shift) == 0
    assert abs(shift_sigma(1, shift) - 1) < 1e-12


@given(st.integers(1, 998))
def test_flux_noise_rises_with_the_index(index: int) -> None:
    assert 0 == flux_sigma(0) < flux_sigma(index) < flux_sigma(index + 1) <= flux_sigma(999) == 1


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 8, 16, 64]))
def test_padding_is_undone(height: int, width: int, multiple: int) -> None:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height * 41 + width))
    padded = pad_to_multiple(images, multiple)
    assert padded.shape[2] % multiple == 0 and padded.shape[3] % multiple == 0
    assert padded.shape[2] < height + multiple and padded.shape[3] < width + multiple
    assert torch.equal(cut(padded, height, width), images)
    assert set(padded.unique().tolist()) == set(images.unique().tolist()), "padding invents no value"


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 24), st.data())
def test_a_pointwise_network_stitches_to_itself(
    height: int, width: int, tile: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    z = torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(height))
    stitched = predict_tiled(lambda x: 2 * x, z, tile=tile, overlap=overlap)
    torch.testing.assert_close(stitched, 2 * z, atol=1e-5, rtol=0)


@given(st.integers(1, 300), st.integers(1, 64), st.data())
def test_tiles_cover(length: int, tile: int, data: st.DataObject) -> None:
    tile = min(tile, length)
    starts = tile_starts(length, tile, data.draw(st.integers(0, tile // 2)))
    covered = {cell for start in starts for cell in range(start, start + tile)}
    assert covered == set(range(length))


@given(st.integers(1, 5000), st.sampled_from([32, 96, 224, 1024]), st.sampled_from([11, 32]))
def test_own_parts_follow_one_another_and_are_read(length: int, tile: int, pad: int) -> None:
    at = 0
    for span in spans(length, tile, pad):
        assert span.own_start == at and span.start <= span.own_start < span.own_end <= span.end
        assert span.start == 0 or span.own_start - span.start == pad
        assert span.end == length or span.end - span.own_end == pad
        at = span.own_end
    assert at == length


@given(st.integers(), st.text(max_size=20))
def test_a_seed_and_a_name_make_the_same_numbers_again(seed: int, name: str) -> None:
    first = torch.randn(4, generator=generator(seed, name))
    assert torch.equal(first, torch.randn(4, generator=generator(seed, name)))
    assert not torch.equal(first, torch.randn(4, generator=generator(seed + 1, name)))
    assert not torch.equal(first, torch.randn(4, generator=generator(seed, name + "'")))
