"""Cutting out and putting back: places, sizes, edges, gradients, and what must not alias."""

import math

import pytest
import torch

from facerestore.core.errors import ShapeError
from facerestore.faces.align import align, source_box, unwarp
from facerestore.faces.paste import face_mask
from facerestore.faces.similarity import window_matrix


def _window(x: float, y: float, side: float, roll_deg: float, size_px: int) -> torch.Tensor:
    return window_matrix(torch.tensor([[x, y]]), torch.tensor([side]), torch.tensor([roll_deg]), size_px)


def _ramp(height: int, width: int) -> torch.Tensor:
    """Red grows with x, green with y: (1,3,height,width)."""
    y, x = torch.meshgrid(torch.arange(height) / 1000, torch.arange(width) / 1000, indexing="ij")
    return torch.stack([x, y, x * 0 + 0.5])[None]


@pytest.mark.parametrize("side", [20.0, 64.0, 300.0])
@pytest.mark.parametrize("roll_deg", [0.0, 33.0, 90.0, 180.0])
def test_every_crop_pixel_comes_from_its_place(side: float, roll_deg: float) -> None:
    crop = align(_ramp(400, 500), _window(250.5, 190.0, side, roll_deg, 64), 64)[0]
    u = (torch.arange(64) - 31.5) * side / 64
    v, u = torch.meshgrid(u, u, indexing="ij")
    angle = math.radians(roll_deg)
    x = 250.5 + math.cos(angle) * u - math.sin(angle) * v
    y = 190.0 + math.sin(angle) * u + math.cos(angle) * v
    inner = slice(4, -4)
    assert (crop[0] * 1000 - x)[inner, inner].abs().max() < 0.05 * max(side / 64, 1)
    assert (crop[1] * 1000 - y)[inner, inner].abs().max() < 0.05 * max(side / 64, 1)


def test_one_to_one_is_a_copy() -> None:
    picture = torch.rand(1, 3, 40, 50, generator=torch.Generator().manual_seed(0))
    crop = align(picture, torch.eye(2, 3)[None] - torch.tensor([[0.0, 0, 7], [0, 0, 5]]), 32)
    torch.testing.assert_close(crop, picture[:, :, 5:37, 7:39], atol=2e-5, rtol=0)
    back = unwarp(crop, torch.eye(2, 3)[None] - torch.tensor([[0.0, 0, 7], [0, 0, 5]]), (9, 8, 30, 31))
    torch.testing.assert_close(back, picture[:, :, 8:31, 9:30], atol=4e-5, rtol=0)


@pytest.mark.parametrize("side", [300.0, 777.0, 1900.0])
@pytest.mark.parametrize("roll_deg", [0.0, 20.0, 45.0])
def test_shrinking_a_checkerboard_gives_flat_grey(side: float, roll_deg: float) -> None:
    board = ((torch.arange(2000)[:, None] + torch.arange(2000)) % 2).float().expand(1, 3, -1, -1)
    crop = align(board, _window(1000.3, 999.6, side, roll_deg, 96), 96)
    assert (crop - 0.5).abs().max() < 0.01
    whole = align(board[:, :, :96, :96], _window(47.5, 47.5, 96, 0.0, 96), 96)
    shrunk = unwarp(whole, _window(15.0, 15.0, 30.0, roll_deg, 96), (6, 6, 25, 25))
    assert (shrunk - 0.5).abs().max() < 0.01


def test_shrinking_keeps_the_mean() -> None:
    picture = torch.rand(1, 3, 600, 600, generator=torch.Generator().manual_seed(3))
    crop = align(picture, _window(299.5, 299.5, 600, 0.0, 50), 50)
    torch.testing.assert_close(crop.mean(dim=(2, 3)), picture.mean(dim=(2, 3)), atol=1e-3, rtol=0)


def test_outside_the_picture_the_crop_is_the_mirrored_picture() -> None:
    picture = torch.rand(1, 3, 60, 60, generator=torch.Generator().manual_seed(4))
    crop = align(picture, _window(-0.5, 29.5, 40, 0.0, 40), 40)
    torch.testing.assert_close(crop[..., :20], crop[..., 20:].flip(3), atol=1e-4, rtol=0)


def test_a_crop_wholly_outside_is_finite() -> None:
    crop = align(torch.rand(1, 3, 30, 30), _window(-500.0, 2000.0, 40, 10.0, 32), 32)
    assert bool(torch.isfinite(crop).all())


def test_a_region_is_enough() -> None:
    """What a crop looks like does not depend on the picture far away from it."""
    picture = torch.rand(1, 3, 500, 500, generator=torch.Generator().manual_seed(5))
    matrix = _window(250.0, 240.0, 100, 25.0, 64)
    x0, y0, x1, y1 = source_box(matrix[0], 64, 500, 500, 8)
    other = torch.zeros_like(picture)
    other[:, :, y0:y1, x0:x1] = picture[:, :, y0:y1, x0:x1]
    assert torch.equal(align(picture, matrix, 64), align(other, matrix, 64))


def test_source_box_holds_the_crop_and_stays_inside() -> None:
    assert source_box(_window(100.0, 50.0, 20, 0.0, 64)[0], 64, 200, 300) == (90, 40, 111, 61)
    assert source_box(_window(100.0, 50.0, 20, 0.0, 64)[0], 64, 200, 300, 5) == (85, 35, 116, 66)
    assert source_box(_window(0.0, 0.0, 20, 45.0, 64)[0], 64, 200, 300) == (0, 0, 15, 15)
    assert source_box(_window(-90.0, 900.0, 20, 0.0, 64)[0], 64, 200, 300) == (0, 199, 1, 200)


def test_the_mask_is_soft_and_ends_before_the_border() -> None:
    mask = face_mask(512)
    assert mask.shape == (1, 1, 512, 512)
    assert mask[..., 112:400, 112:400].min() == 1  # eyes, mouth, chin
    for edge in (mask[..., :8, :], mask[..., -8:, :], mask[..., :8], mask[..., -8:]):
        assert edge.max() == 0
    assert torch.equal(mask, mask.flip(2))
    assert torch.equal(mask, mask.transpose(2, 3))
    steps = torch.cat([mask.diff(dim=3).flatten(), mask.diff(dim=2).flatten()]).abs()
    assert steps.max() < 0.03


@pytest.mark.parametrize("roll_deg", [0.0, 30.0, 137.0])
@pytest.mark.parametrize("side", [40.0, 200.0, 900.0])
def test_the_mask_is_zero_beyond_the_crop(roll_deg: float, side: float) -> None:
    matrix = _window(300.0, 300.0, side, roll_deg, 128)
    x0, y0, x1, y1 = source_box(matrix[0], 128, 10000, 10000, 20)
    mask = unwarp(face_mask(128), matrix, (x0, y0, x1, y1))[0, 0].clamp(0, 1)
    y, x = torch.meshgrid(torch.arange(y0, y1), torch.arange(x0, x1), indexing="ij")
    u = matrix[0, 0, 0] * x + matrix[0, 0, 1] * y + matrix[0, 0, 2]
    v = matrix[0, 1, 0] * x + matrix[0, 1, 1] * y + matrix[0, 1, 2]
    beyond = torch.maximum((u - 63.5).abs(), (v - 63.5).abs()) > 64.5
    assert beyond.any()
    assert mask[beyond].max() < 1e-3
    assert mask[~beyond].max() > 0.999


@pytest.mark.parametrize("scale", [0.4, 1.0, 2.6])
def test_gradients(scale: float) -> None:
    generator = torch.Generator().manual_seed(6)
    picture = torch.rand(1, 1, 9, 10, generator=generator, dtype=torch.float64, requires_grad=True)
    crops = torch.rand(1, 1, 6, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    matrix = _window(4.4, 4.1, 6 / scale, 17.0, 6).double()
    assert torch.autograd.gradcheck(lambda image: align(image, matrix, 6), (picture,))
    assert torch.autograd.gradcheck(lambda crop: unwarp(crop, matrix, (1, 1, 7, 8)), (crops,))


def test_gradients_reach_the_matrices() -> None:
    picture = _ramp(50, 50).double()
    matrix = _window(25.2, 24.6, 30.0, 5.0, 24).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m: align(picture, m, 24)[..., 8:16, 8:16], (matrix,), atol=1e-4, eps=1e-4
    )


def test_no_faces_give_no_crops() -> None:
    none = torch.zeros(0, 2, 3)
    assert align(torch.rand(1, 3, 8, 8), none, 16).shape == (0, 3, 16, 16)
    assert unwarp(torch.zeros(0, 3, 16, 16), none, (0, 0, 4, 5)).shape == (0, 3, 5, 4)


def test_what_does_not_fit_is_refused() -> None:
    matrix = torch.eye(2, 3)[None]
    with pytest.raises(ShapeError, match="one image"):
        align(torch.rand(2, 3, 8, 8), matrix)
    with pytest.raises(ShapeError, match="matrices"):
        align(torch.rand(1, 3, 8, 8), matrix[0])
    with pytest.raises(ShapeError, match="crops"):
        unwarp(torch.rand(2, 3, 8, 8), matrix, (0, 0, 4, 4))
    with pytest.raises(ShapeError, match="box"):
        unwarp(torch.rand(1, 3, 8, 8), matrix, (4, 0, 4, 4))
