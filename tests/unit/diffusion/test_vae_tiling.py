"""Tiles that share their statistics: equal to the direct pass where one suffices, without seams where not."""

import pytest
import torch
from torch import nn

from facerestore.core.errors import ConfigError
from facerestore.diffusion.vae_tiling import Span, VaeTiles, decode_tiled, encode_tiled, needs_tiles, spans

SMALL = VaeTiles(encoder_px=64, decoder_cells=32)


@pytest.fixture(scope="module")
def gradient() -> torch.Tensor:
    """Latents that rise from one end to the other, (1,4,96,24), with some grain."""
    rise = torch.linspace(-2, 2, 96)[:, None].expand(96, 24)
    grain = 0.2 * torch.randn(1, 4, 96, 24, generator=torch.Generator().manual_seed(0))
    return rise + grain


def test_one_tile_is_the_direct_pass(vae: nn.Module, images: torch.Tensor) -> None:
    """Though the tile would not be needed, it goes through the machinery."""
    moments = vae.encode(images).latent_dist.parameters
    torch.testing.assert_close(encode_tiled(vae, images, VaeTiles()), moments, atol=1e-5, rtol=0)
    z = moments[:, :4]
    torch.testing.assert_close(decode_tiled(vae, z, VaeTiles()), vae.decode(z).sample, atol=1e-5, rtol=0)


def test_networks_without_outer_convolutions_and_with_other_depths() -> None:
    from facerestore.diffusion import backbones, configs
    from facerestore.weights.seeded import fill_seeded

    config = configs.TINY_FLUX_VAE | {
        "layers_per_block": 2,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    net = backbones.sd_vae(config).eval().requires_grad_(False)
    fill_seeded(net)
    z = torch.randn(2, 16, 12, 20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(decode_tiled(net, z, SMALL), net.decode(z).sample, atol=1e-5, rtol=0)
    x = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        encode_tiled(net, x, SMALL), net.encode(x).latent_dist.parameters, atol=1e-5, rtol=0
    )


def test_pooled_statistics_leave_no_seam_where_tiles_alone_do(vae: nn.Module, gradient: torch.Tensor) -> None:
    whole = vae.decode(gradient).sample
    pooled = decode_tiled(vae, gradient, SMALL)
    alone = torch.empty_like(whole)
    rows = spans(96, 32, 11)
    for span in rows:
        tile = vae.decode(gradient[:, :, span.start : span.end]).sample
        alone[:, :, span.own_start * 8 : span.own_end * 8] = tile[:, :, span.own(tile.shape[2])]

    seams = [span.own_start * 8 for span in rows[1:]]
    assert len(seams) == 2

    def jump(out: torch.Tensor) -> float:
        """The mean step in tone over a seam, beyond what the whole picture has there."""
        error = (out - whole).mean(dim=(0, 3))
        return max(float((error[:, y] - error[:, y - 1]).abs().max()) for y in seams)

    assert jump(alone) > 0.05 * float(whole.std()), "the gradient is such that tiles alone show"
    assert jump(pooled) < 0.1 * jump(alone)
    assert (pooled - whole).abs().mean() < 0.1 * (alone - whole).abs().mean()


def test_encoding_in_tiles_is_close_to_the_whole(vae: nn.Module) -> None:
    picture = torch.linspace(-1, 1, 224)[:, None].expand(224, 160).expand(2, 3, -1, -1).clone()
    picture += 0.1 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    whole = vae.encode(picture).latent_dist.parameters
    tiled = encode_tiled(vae, picture, SMALL)
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.01 * whole.std()


def test_a_batch_is_its_images(vae: nn.Module, gradient: torch.Tensor) -> None:
    both = torch.cat([gradient, gradient.flip(2) * 0.5])
    together = decode_tiled(vae, both, SMALL)
    for i in range(2):
        torch.testing.assert_close(
            together[i : i + 1], decode_tiled(vae, both[i : i + 1], SMALL), atol=1e-5, rtol=0
        )


def test_the_layout_is_that_of_the_script() -> None:
    """Boxes that `VAEHook.split_tiles` of cswry/OSEDiff (commit fcc4f09c) gives for the same sides."""
    assert spans(100, 32, 11) == [
        Span(start=0, end=54, own_start=0, own_end=43),
        Span(start=32, end=86, own_start=43, own_end=75),
        Span(start=64, end=100, own_start=75, own_end=100),
    ]
    assert spans(1200, 1024, 32) == [
        Span(start=0, end=640, own_start=0, own_end=608),
        Span(start=576, end=1200, own_start=608, own_end=1200),
    ]
    assert spans(16, 224, 11) == [Span(start=0, end=16, own_start=0, own_end=16)]


def test_when_tiles_are_needed() -> None:
    tiles = VaeTiles()
    assert not needs_tiles(tiles, 1088, decoding=False) and needs_tiles(tiles, 1096, decoding=False)
    assert not needs_tiles(tiles, 246, decoding=True) and needs_tiles(tiles, 247, decoding=True)
    with pytest.raises(ConfigError, match="multiple of 32"):
        VaeTiles(encoder_px=1000)
