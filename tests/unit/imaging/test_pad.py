"""Padding: what is drawn outside, and what is refused."""

import pytest
import torch

from facerestore.core.errors import ShapeError
from facerestore.imaging.pad import cut, pad_to_multiple


def test_a_picture_that_fits_is_not_copied() -> None:
    images = torch.rand(1, 3, 16, 32)
    assert pad_to_multiple(images, 16) is images


def test_the_border_is_a_mirror_and_then_its_last_value() -> None:
    row = torch.arange(3.0).reshape(1, 1, 1, 3)
    padded = pad_to_multiple(row, 8)
    assert padded[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 0, 0, 0]
    assert all(torch.equal(padded[0, 0, 0], padded[0, 0, i]) for i in range(8))


def test_gradients_pass() -> None:
    images = torch.rand(1, 3, 5, 6, requires_grad=True)
    pad_to_multiple(images, 8).sum().backward()
    assert images.grad is not None and float(images.grad.sum()) == 3 * 64


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 3, 0, 5)])
def test_no_picture_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="at least one pixel"):
        pad_to_multiple(torch.zeros(shape), 8)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ShapeError, match="multiple of at least 1"):
        pad_to_multiple(torch.zeros(1, 3, 4, 4), 0)
    with pytest.raises(ShapeError, match="at least 9 x 4"):
        cut(torch.zeros(1, 3, 8, 8), 9, 4)
