"""Stitching predictions: where one pass suffices, at sizes where the published code hangs, and seams."""

import pytest
import torch

from facerestore.core.errors import ConfigError
from facerestore.diffusion.latent_tiling import gaussian_weights, predict_tiled, tile_starts


def test_an_area_of_one_tile_goes_through_whole() -> None:
    seen: list[tuple[int, ...]] = []

    def predict(x: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return x.half()

    z = torch.randn(2, 4, 32, 128, generator=torch.Generator().manual_seed(0))
    out = predict_tiled(predict, z, tile=64, overlap=32)
    assert seen == [(2, 4, 32, 128)] and out.dtype == torch.float32
    assert torch.equal(out, z.half().float())


@pytest.mark.parametrize("size", [(32, 160), (24, 200), (160, 32), (1, 5000), (33, 130)])
def test_sizes_at_which_the_published_loop_never_ends(size: tuple[int, int]) -> None:
    z = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(0))
    shapes: set[tuple[int, ...]] = set()

    def predict(x: torch.Tensor) -> torch.Tensor:
        shapes.add(tuple(x.shape[2:]))
        return -x

    torch.testing.assert_close(predict_tiled(predict, z, tile=64, overlap=32), -z, atol=1e-5, rtol=0)
    assert shapes == {(min(size), min(size))}


def test_tiles_start_at_equal_strides_but_the_last() -> None:
    assert tile_starts(70, 32, 8) == [0, 24, 38]
    assert tile_starts(32, 32, 8) == [0]
    assert tile_starts(56, 32, 8) == [0, 24]


def test_weights_are_a_gaussian_whose_rows_stand_half_a_cell_lower() -> None:
    weights = gaussian_weights(8)
    assert weights.shape == (8, 8) and weights.dtype == torch.float64
    row = weights[4] / weights[4].max()
    torch.testing.assert_close(row, row.flip(0))
    assert int(weights[:, 0].argmax()) == 4
    middle = float(weights[4, 3])
    assert middle == pytest.approx(1 / (2 * torch.pi * 0.01) * 2.718281828 ** -(0.25 / 64 / 0.02), rel=1e-6)


def test_tiles_that_disagree_fade_into_one_another() -> None:
    """Each tile answers with its own level; between tiles the prediction must change step by step."""
    levels = iter(range(100))

    def predict(x: torch.Tensor) -> torch.Tensor:
        return torch.full_like(x, next(levels) % 2)

    out = predict_tiled(predict, torch.zeros(1, 1, 32, 96), tile=32, overlap=16)
    step = (out[..., 1:] - out[..., :-1]).abs().max()
    assert out.max() - out.min() > 0.9
    assert step < 0.4, "the fade is a logistic curve of slope (16 / 0.01 / 32^2) / 4 per cell"


@pytest.mark.parametrize("overlap", [-1, 64, 100])
def test_an_overlap_that_leaves_no_stride_is_refused(overlap: int) -> None:
    with pytest.raises(ConfigError, match="overlap"):
        predict_tiled(lambda x: x, torch.zeros(1, 4, 8, 8), tile=64, overlap=overlap)
