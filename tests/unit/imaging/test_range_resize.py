"""Value ranges and resizing."""

import pytest
import torch

from facerestore.core.errors import ShapeError
from facerestore.imaging.range import from_signed, from_uint8, to_signed, to_uint8
from facerestore.imaging.resize import resize


def test_every_8_bit_value_survives() -> None:
    values = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_uint8(from_uint8(values)), values)


def test_rounding_goes_to_the_nearest_and_clamps() -> None:
    values = torch.tensor([-0.2, 0.49 / 255, 0.51 / 255, 1.7])
    assert to_uint8(values).tolist() == [0, 0, 1, 255]


def test_signed_range_and_back() -> None:
    values = torch.linspace(0, 1, 11)
    assert to_signed(values)[[0, 5, 10]].tolist() == [-1, 0, 1]
    assert torch.allclose(from_signed(to_signed(values)), values, atol=1e-7)


@pytest.mark.parametrize("size", [(16, 16), (13, 24), (7, 90), (160, 5)])
def test_resizing_keeps_a_flat_picture_and_the_mean_of_a_ramp(size: tuple[int, int]) -> None:
    flat = torch.full((2, 3, 64, 48), 0.37)
    assert torch.allclose(resize(flat, *size), torch.full((2, 3, *size), 0.37), atol=1e-6)
    ramp = torch.linspace(0.2, 0.8, 48).expand(1, 1, 64, 48)
    assert resize(ramp, *size).mean() == pytest.approx(0.5, abs=2e-3)


def test_shrinking_does_not_alias() -> None:
    stripes = (torch.arange(256) % 2).float().expand(1, 1, 256, 256)
    inside = resize(stripes, 50, 50)[..., 5:-5, 5:-5]
    assert (inside - 0.5).abs().max() < 0.02


def test_enlarging_stays_in_range_and_follows_the_edge() -> None:
    edge = torch.zeros(1, 1, 8, 8)
    edge[..., 4:] = 1
    large = resize(edge, 32, 32)
    assert large.min() >= 0 and large.max() <= 1
    assert large[0, 0, 16, 12] < 0.1 and large[0, 0, 16, 19] > 0.9


def test_the_same_size_is_the_same_picture() -> None:
    picture = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    assert resize(picture, 9, 11) is picture


@pytest.mark.parametrize(("shape", "size"), [((3, 8, 8), (4, 4)), ((1, 3, 8, 8), (0, 4))])
def test_bad_shapes_are_named(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    with pytest.raises(ShapeError):
        resize(torch.zeros(shape), *size)
