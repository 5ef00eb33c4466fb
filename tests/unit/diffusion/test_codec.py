"""Latents and pictures: what diffusers gives, whatever the batch, with noise that belongs to each image."""

import pytest
import torch
from torch import nn

from facerestore.core.errors import ShapeError
from facerestore.diffusion import backbones, configs
from facerestore.diffusion.codec import LatentCodec, Posterior
from facerestore.diffusion.vae_tiling import VaeTiles
from facerestore.weights.seeded import fill_seeded


@pytest.mark.parametrize("shift", [0.0, 0.1159])
def test_a_round_trip_is_that_of_diffusers(vae: nn.Module, images: torch.Tensor, shift: float) -> None:
    codec = LatentCodec(vae, scaling=0.18215, shift=shift)
    latent = vae.encode(images * 2 - 1).latent_dist.mode()
    z = codec.encode(images, (0, 1, 2))
    assert z.shape == (3, 4, 8, 6) and z.dtype == torch.float32
    torch.testing.assert_close(z, (latent - shift) * 0.18215, atol=1e-6, rtol=0)
    torch.testing.assert_close(codec.decode(z), vae.decode(latent).sample / 2 + 0.5, atol=1e-5, rtol=0)


@pytest.mark.parametrize("posterior", ["mode", "sample"])
@pytest.mark.parametrize("net", ["vae", "taesd"])
def test_a_batch_is_its_images(
    net: str, posterior: Posterior, images: torch.Tensor, request: pytest.FixtureRequest
) -> None:
    codec = LatentCodec.of(request.getfixturevalue(net))
    seeds = (7, -3, 7)
    together = codec.encode(images, seeds, posterior)
    for i, seed in enumerate(seeds):
        one = codec.encode(images[i : i + 1], (seed,), posterior)
        torch.testing.assert_close(together[i : i + 1], one, atol=1e-6, rtol=0)
        torch.testing.assert_close(codec.decode(together)[i : i + 1], codec.decode(one), atol=1e-5, rtol=0)


def test_noise_belongs_to_the_seed_and_to_the_stage(vae: nn.Module, images: torch.Tensor) -> None:
    codec, other = LatentCodec.of(vae, name="osdface"), LatentCodec.of(vae, name="zimage")
    same = images[:1].expand(3, -1, -1, -1)
    sampled = codec.encode(same, (5, 6, 5), "sample")
    torch.testing.assert_close(sampled[0], sampled[2], atol=1e-6, rtol=0)
    assert (sampled[0] - sampled[1]).abs().max() > 1e-3
    assert (sampled[0] - other.encode(same[:1], (5,), "sample")[0]).abs().max() > 1e-3


def test_samples_spread_as_the_posterior_says(vae: nn.Module, images: torch.Tensor) -> None:
    codec = LatentCodec.of(vae)
    posterior = vae.encode(images[:1] * 2 - 1).latent_dist
    many = codec.encode(images[:1].expand(64, -1, -1, -1), tuple(range(64)), "sample") / 0.18215
    standard = (many - posterior.mean) / posterior.std
    assert abs(float(standard.mean())) < 0.02 and abs(float(standard.std()) - 1) < 0.02


def test_the_constants_of_a_config_are_taken(taesd: nn.Module) -> None:
    flux = LatentCodec.of(backbones.sd_vae(configs.TINY_FLUX_VAE))
    assert (flux.scaling, flux.shift, flux.factor) == (0.3611, 0.1159, 8)
    tiny = LatentCodec.of(taesd)
    assert (tiny.scaling, tiny.shift, tiny.factor) == (1.0, 0.0, 8)


def test_half_weights_give_float_latents(images: torch.Tensor) -> None:
    net = backbones.sd_vae(configs.TINY_SD_VAE)
    fill_seeded(net)
    full, half = LatentCodec.of(net.eval()), LatentCodec.of(net.eval())
    exact = full.encode(images, (0, 1, 2), "sample")
    half.vae = net.to(torch.bfloat16)
    z = half.encode(images, (0, 1, 2), "sample")
    assert z.dtype == half.decode(z).dtype == torch.float32
    assert (z - exact).abs().mean() < 0.02 * exact.abs().mean()


def test_gradients_pass_from_picture_to_picture(vae: nn.Module, images: torch.Tensor) -> None:
    codec = LatentCodec.of(vae)
    x = images[:1].clone().requires_grad_()
    codec.decode(codec.encode(x, (0,), "sample")).mean().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_what_does_not_fit_is_refused(vae: nn.Module, images: torch.Tensor) -> None:
    codec = LatentCodec.of(vae)
    with pytest.raises(ShapeError, match="3 seeds"):
        codec.encode(images, (0,))
    with pytest.raises(ShapeError, match="multiples of 8"):
        codec.encode(images[..., :47], (0, 1, 2))
    with pytest.raises(ShapeError, match="images"):
        codec.encode(images[:1, :, 0], (0,))


def test_a_large_picture_goes_in_tiles(vae: nn.Module) -> None:
    picture = torch.rand(1, 3, 200, 136, generator=torch.Generator().manual_seed(1))
    whole = LatentCodec.of(vae)
    tiled = LatentCodec(vae, scaling=0.18215, tiles=VaeTiles(encoder_px=64, decoder_cells=32))
    z = whole.encode(picture, (3,), "sample")
    assert 0 < (tiled.encode(picture, (3,), "sample") - z).abs().mean() < 0.02 * z.std()
    wide = torch.nn.functional.interpolate(z, size=(60, 24))
    out = whole.decode(wide)
    assert 0 < (tiled.decode(wide) - out).abs().mean() < 0.02 * out.std()


def test_a_small_decoder_takes_the_same_scaled_latents(
    vae: nn.Module, taesd: nn.Module, images: torch.Tensor
) -> None:
    codec = LatentCodec.of(vae, decoder=LatentCodec.of(taesd))
    z = codec.encode(images, (0, 1, 2))
    assert torch.equal(z, LatentCodec.of(vae).encode(images, (0, 1, 2)))
    torch.testing.assert_close(codec.decode(z), taesd.decode(z).sample / 2 + 0.5, atol=1e-6, rtol=0)
    sixteen = LatentCodec.of(backbones.tiny_vae(configs.TINY_TAEF1))
    with pytest.raises(ShapeError, match=r"\(4, 8\) channels and pixels"):
        LatentCodec.of(vae, decoder=sixteen)
