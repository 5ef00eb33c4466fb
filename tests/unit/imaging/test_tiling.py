"""Tiles cover everything, and no seam shows."""

from itertools import pairwise

import pytest
import torch

from facerestore.imaging.resize import resize
from facerestore.imaging.tiling import enlarge_in_strips, tile_starts


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(10, 16, 4), (16, 16, 4), (17, 16, 4), (100, 16, 4), (999, 192, 24)]
)
def test_tiles_cover_with_the_overlap(length: int, tile: int, overlap: int) -> None:
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0 and starts[-1] == max(0, length - tile)
    assert all(b - a <= tile - overlap for a, b in pairwise(starts))


def _joined(picture: torch.Tensor, enlarge: object, scale: int, tile: int, overlap: int) -> torch.Tensor:
    height, width = picture.shape[2:]
    at = 0
    strips = []
    for y, strip in enlarge_in_strips(
        lambda box: picture[..., box[1] : box[3], box[0] : box[2]],
        enlarge,  # type: ignore[arg-type]
        height,
        width,
        scale=scale,
        tile_px=tile,
        overlap_px=overlap,
    ):
        assert y == at
        at += strip.shape[2]
        strips.append(strip)
    return torch.cat(strips, 2)


@pytest.mark.parametrize("size", [(5, 7), (40, 33), (64, 50)])
def test_a_pointwise_network_comes_out_exact(size: tuple[int, int]) -> None:
    picture = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))

    def repeat(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    torch.testing.assert_close(_joined(picture, repeat, 2, 16, 4), repeat(picture), atol=1e-6, rtol=0)


def test_tiles_that_disagree_are_faded_into_one_another() -> None:
    """Each tile answers with its own brightness; between tiles the picture must change step by step."""
    levels = iter(range(1000))

    def flat(x: torch.Tensor) -> torch.Tensor:
        return torch.full((1, 3, x.shape[2] * 2, x.shape[3] * 2), (next(levels) % 2) * 0.5)

    out = _joined(torch.zeros(1, 3, 16, 60), flat, 2, 16, 6)
    jump = (out[..., 1:] - out[..., :-1]).abs().max()
    assert 0 < jump < 0.5 / 8, (
        "the ramp is about 12 px wide, so a step is well below an eighth of the difference"
    )


def test_a_local_network_matches_the_whole() -> None:
    picture = torch.rand(1, 3, 50, 70, generator=torch.Generator().manual_seed(0))

    def enlarge(x: torch.Tensor) -> torch.Tensor:
        return resize(x, x.shape[2] * 4, x.shape[3] * 4)

    whole, tiled = enlarge(picture), _joined(picture, enlarge, 4, 32, 12)
    difference = (whole - tiled).abs()
    assert difference.mean() < 1e-3 and difference.max() < 0.08
