"""The crop of recognition networks: where points land, what is read, and what depends on what."""

import pytest
import torch

from facerestore.core.errors import ShapeError
from facerestore.faces.recognition import recognition_crop
from facerestore.faces.similarity import apply, invert, window_matrix
from facerestore.faces.templates import ARCFACE_112, FFHQ_512


def ramps(height: int, width: int) -> torch.Tensor:
    """(1,3,H,W): each pixel says in its first two channels where it is, as parts of 1024."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows, torch.full_like(rows, 1024)])[None].float() / 1024


@pytest.mark.parametrize("samples", [1, 4])
def test_points_that_fit_land_on_the_template(samples: int) -> None:
    """A turned, moved, larger template: read where a point lands, and find the point, within 1e-3 px."""
    turned = window_matrix(torch.tensor([[300.0, 250.0]]), torch.tensor([360.0]), torch.tensor([20.0]), 112)
    points = apply(invert(turned.double()), ARCFACE_112[None])
    crop = recognition_crop(ramps(600, 640), points, samples=samples)
    for (x, y), (at_x, at_y) in zip(ARCFACE_112.tolist(), points[0].tolist(), strict=True):
        # Ramps are linear, so what lies between pixels follows from four of them.
        left, top = int(x), int(y)
        u, v = x - left, y - top
        four = crop[0, :2, top : top + 2, left : left + 2].double() * 1024
        rows = four[:, 0] * (1 - v) + four[:, 1] * v
        found = rows[:, 0] * (1 - u) + rows[:, 1] * u
        assert found.tolist() == pytest.approx([at_x, at_y], abs=1e-3)


def test_aligned_faces_are_cut_by_the_template_of_ffhq() -> None:
    faces = torch.rand(2, 3, 512, 512)
    by_points = recognition_crop(faces, FFHQ_512.expand(2, 5, 2))
    assert by_points.shape == (2, 3, 112, 112)
    assert torch.equal(recognition_crop(faces), by_points)


def test_beyond_the_picture_it_is_black() -> None:
    crop = recognition_crop(torch.ones(1, 3, 512, 512), FFHQ_512[None] - 200)
    assert crop[0, :, 0, 0].eq(0).all() and crop[0, :, -1, -1].eq(1).all()


def test_four_samples_reach_every_pixel_with_gradients_and_one_a_third() -> None:
    reached = []
    for samples in (1, 4):
        face = torch.rand(1, 3, 512, 512, requires_grad=True)
        recognition_crop(face, samples=samples).sum().backward()
        assert face.grad is not None
        reached.append((face.grad[0, 0, 80:420, 80:420] > 0).double().mean().item())
    assert 0.25 < reached[0] < 0.45
    assert reached[1] == 1.0


def test_a_batch_is_its_singles() -> None:
    pictures = torch.rand(3, 3, 300, 400)
    points = FFHQ_512 * 0.5 + torch.tensor([[[0.0, 0.0]], [[20.0, -5.0]], [[-30.0, 11.0]]])
    together = recognition_crop(pictures, points, samples=2)
    for i in range(3):
        alone = recognition_crop(pictures[i : i + 1], points[i : i + 1], samples=2)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("shape", "points"),
    [
        ((3, 512, 512), None),
        ((1, 3, 256, 256), None),
        ((1, 1, 512, 512), None),
        ((2, 3, 512, 512), (1, 5, 2)),
    ],
)
def test_other_shapes_are_refused(shape: tuple[int, ...], points: tuple[int, ...] | None) -> None:
    with pytest.raises(ShapeError):
        recognition_crop(torch.zeros(shape), None if points is None else torch.ones(points))
