"""Z-Image in one step against diffusers' own pipeline and scheduler, with equal made weights."""

import pytest
import torch
from torch import nn

from facerestore.core.state import RestorationState
from facerestore.diffusion import backbones
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.configs import TINY_FLUX_VAE, TINY_ZIMAGE_TRANSFORMER
from facerestore.diffusion.schedule import shift_sigma
from facerestore.stages.zimage import ZImage
from facerestore.weights.seeded import fill_seeded

SIGMA = 0.244


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _net(net: nn.Module) -> nn.Module:
    """Made weights with norms near 1, so that everything matters."""
    fill_seeded(net)
    for name, parameter in net.eval().requires_grad_(False).named_parameters():
        if "norm" in name and name.endswith("weight"):
            parameter += 1
    return net


def _stage(*, fold: bool, sigma: float = SIGMA) -> ZImage:
    transformer = _net(backbones.zimage_transformer(TINY_ZIMAGE_TRANSFORMER))
    codec = LatentCodec.of(_net(backbones.sd_vae(TINY_FLUX_VAE)))
    return ZImage(transformer, codec, _noise(7, 16, seed=1), ZImage.Config(fold=fold, sigma=sigma))


def _official(latents: torch.Tensor, sigma: float, shift: float, output: str) -> torch.Tensor:
    """What `ZImagePipeline` makes of latents in one step."""
    import diffusers

    stage = _stage(fold=False)
    pipeline = diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift),
        vae=stage.codec.vae,
        text_encoder=None,
        tokenizer=None,
        transformer=stage.transformer,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        prompt_embeds=[stage.prompt] * len(latents),
        height=latents.shape[2] * 8,
        width=latents.shape[3] * 8,
        num_inference_steps=1,
        sigmas=[sigma],
        guidance_scale=0.0,
        latents=latents.clone(),
        output_type=output,
    ).images


@pytest.mark.parametrize("sigma", [0.121, SIGMA, 0.5])
def test_one_step_of_the_pipeline_bit_for_bit(sigma: float) -> None:
    z = _noise(2, 16, 8, 12)
    with torch.no_grad():
        ours = _stage(fold=False, sigma=sigma).step(z)
        folded = _stage(fold=True, sigma=sigma).step(z)
    official = _official(z, sigma, shift=1.0, output="latent")
    assert torch.equal(ours, official)
    torch.testing.assert_close(folded, official, atol=1e-5, rtol=0)
    assert (official - z).abs().mean() > 0.05


def test_with_turbos_own_shift_the_pipeline_runs_at_another_noise_level() -> None:
    z = _noise(1, 16, 8, 8)
    official = _official(z, SIGMA, shift=3.0, output="latent")
    with torch.no_grad():
        moved = _stage(fold=False, sigma=shift_sigma(SIGMA, 3)).step(z)
        ours = _stage(fold=False).step(z)
    torch.testing.assert_close(moved, official, atol=1e-4, rtol=0)  # the scheduler shifts in float32
    assert (ours - official).abs().mean() > 1e-2


def test_one_step_of_the_scheduler() -> None:
    import diffusers

    stage, z = _stage(fold=False), _noise(2, 16, 8, 8)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    scheduler.set_timesteps(sigmas=[SIGMA])
    with torch.no_grad():
        velocity = -stage.predict(z)
        official = scheduler.step(velocity, scheduler.timesteps[0], z, return_dict=False)[0]
        assert torch.equal(stage.step(z), official)


def test_from_picture_to_picture() -> None:
    import diffusers

    pictures = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    stage = _stage(fold=True)
    vae = stage.codec.vae
    with torch.no_grad():
        ours = stage(RestorationState.start(pictures)).image
        signed = diffusers.image_processor.VaeImageProcessor().normalize(pictures)
        z = (vae.encode(signed).latent_dist.mode() - 0.1159) * 0.3611
    torch.testing.assert_close(ours, _official(z, SIGMA, shift=1.0, output="pt"), atol=1e-5, rtol=0)
