"""Similarities: exact where an exact one exists, least squares where not, never mirrored."""

import math

import numpy as np
import pytest
import torch

from facerestore.core.errors import ShapeError
from facerestore.faces.similarity import (
    apply,
    compose,
    invert,
    roll_deg_of,
    scale_of,
    similarity_matrix,
    window_matrix,
)
from facerestore.faces.templates import FFHQ_512


def _matrix(scale: float, roll_deg: float, x: float, y: float) -> torch.Tensor:
    """Brings a face with this roll, centred at (x, y), upright to the origin."""
    angle = math.radians(roll_deg)
    rows = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    linear = scale * torch.tensor(rows, dtype=torch.float64)
    return torch.cat([linear, -linear @ torch.tensor([[x], [y]], dtype=torch.float64)], dim=1)[None]


@pytest.mark.parametrize("roll_deg", [0.0, 30.0, 90.0, 137.0, 180.0, -45.0, -179.0])
def test_recovers_an_exact_similarity(roll_deg: float) -> None:
    matrix = _matrix(3.5, roll_deg, 1200.0, -40.0)
    points = apply(invert(matrix), FFHQ_512.double()[None])
    fitted = similarity_matrix(points, FFHQ_512)
    torch.testing.assert_close(fitted, matrix, atol=1e-9, rtol=0)
    assert float(scale_of(fitted)) == pytest.approx(3.5)
    assert float(roll_deg_of(fitted)) == pytest.approx(roll_deg)


def test_is_the_least_squares_optimum() -> None:
    generator = torch.Generator().manual_seed(0)
    points = FFHQ_512.double() + 20 * torch.randn(5, 2, generator=generator, dtype=torch.float64)
    matrix = similarity_matrix(points[None], FFHQ_512)
    a, b = matrix[0, 0, 0], matrix[0, 1, 0]
    assert matrix[0, 1, 1] == a  # no mirroring, no shear
    assert matrix[0, 0, 1] == -b
    free = torch.tensor([a, b, matrix[0, 0, 2], matrix[0, 1, 2]], dtype=torch.float64, requires_grad=True)
    x = free[0] * points[:, 0] - free[1] * points[:, 1] + free[2]
    y = free[1] * points[:, 0] + free[0] * points[:, 1] + free[3]
    error = (torch.stack([x, y], 1) - FFHQ_512).square().sum()
    (gradient,) = torch.autograd.grad(error, free)
    assert gradient.abs().max() < 1e-6 * error.detach() * 1e2


def test_a_mirrored_face_is_not_mirrored_back() -> None:
    mirrored = FFHQ_512 * torch.tensor([-1.0, 1.0])
    assert torch.linalg.det(similarity_matrix(mirrored[None], FFHQ_512)[0, :, :2]) > 0


def test_takes_arrays_and_keeps_their_precision() -> None:
    points = np.asarray(FFHQ_512)[None].astype(np.float32)
    assert similarity_matrix(points, np.asarray(FFHQ_512)).dtype == torch.float32
    identity = torch.eye(2, 3, dtype=torch.float64)[None]
    torch.testing.assert_close(similarity_matrix(points.astype(np.float64), FFHQ_512), identity)


def test_a_batch_equals_its_members() -> None:
    generator = torch.Generator().manual_seed(1)
    points = 100 * torch.rand(6, 5, 2, generator=generator)
    together = similarity_matrix(points, FFHQ_512)
    for one, matrix in zip(points, together, strict=True):
        torch.testing.assert_close(similarity_matrix(one[None], FFHQ_512)[0], matrix, atol=1e-5, rtol=1e-6)


def test_inverse_and_composition() -> None:
    first, second = _matrix(2.0, 40.0, 3.0, 4.0), _matrix(0.3, -100.0, -20.0, 7.0)
    points = torch.tensor([[[5.0, 6.0], [-1.0, 2.0]]], dtype=torch.float64)
    torch.testing.assert_close(apply(compose(second, first), points), apply(second, apply(first, points)))
    torch.testing.assert_close(apply(invert(first), apply(first, points)), points)


def test_a_window_is_a_turned_square() -> None:
    matrix = window_matrix(torch.tensor([[50.0, 60.0]]), torch.tensor([24.0]), torch.tensor([90.0]), 48)
    # Rolled by a quarter turn clockwise, the face's top is on the right.
    places = torch.tensor([[[50.0, 60.0], [62.0, 60.0], [50.0, 48.0]]])
    torch.testing.assert_close(
        apply(matrix, places)[0],
        torch.tensor([[23.5, 23.5], [23.5, -0.5], [-0.5, 23.5]]),
        atol=1e-4,
        rtol=0,
    )


@pytest.mark.parametrize("shape", [(5, 2), (1, 1, 2), (1, 5, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError):
        similarity_matrix(torch.zeros(shape), FFHQ_512)


def test_a_template_of_other_points_is_refused() -> None:
    with pytest.raises(ShapeError, match="template"):
        similarity_matrix(torch.zeros(1, 4, 2), FFHQ_512)
