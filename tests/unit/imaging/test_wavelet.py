"""The Haar transform and its inverse, and the blur of a batch."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from facerestore.core.errors import ShapeError
from facerestore.imaging.blur import gaussian_blur
from facerestore.imaging.wavelet import haar, inverse_haar


@given(st.integers(1, 2), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_there_and_back(batch, channels, rows, columns, seed):
    image = torch.randn(batch, channels, 2 * rows, 2 * columns, generator=torch.Generator().manual_seed(seed))
    low, high = haar(image)
    assert low.shape == (batch, channels, rows, columns) and high.shape == (batch, 3, channels, rows, columns)
    torch.testing.assert_close(inverse_haar(low, high), image, atol=1e-6, rtol=0)
    torch.testing.assert_close(low.square().sum() + high.square().sum(), image.square().sum())


def test_bands_of_one_block():
    low, high = haar(torch.tensor([[1.0, 2.0], [5.0, 10.0]]).view(1, 1, 2, 2))
    assert low.item() == 9.0
    assert high.flatten().tolist() == [6.0, 3.0, 2.0]


def test_bands_are_those_of_the_tensor_product():
    """The one-dimensional transform, as a matrix, on both sides."""
    image = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    half = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64) / 2**0.5
    down, across = (torch.kron(torch.eye(4, dtype=torch.float64), half[i : i + 1]) for i in range(2))
    low, high = haar(image)
    plane = image[0, 0]
    sides = ((down, down), (across, down), (down, across), (across, across))
    for found, (rows, columns) in zip((low, *high.unbind(1)), sides, strict=True):
        torch.testing.assert_close(found[0, 0], rows @ plane @ columns.T)


def test_gradients_pass():
    image = torch.rand(1, 2, 4, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(haar, (image,))
    low, high = (each.detach().requires_grad_() for each in haar(image))
    assert torch.autograd.gradcheck(inverse_haar, (low, high))


@pytest.mark.parametrize("shape", [(1, 3, 5, 4), (1, 3, 4, 5), (3, 4, 4)])
def test_odd_sides_are_refused(shape):
    with pytest.raises(ShapeError, match="even sides"):
        haar(torch.zeros(shape))


def test_bands_that_do_not_belong_together_are_refused():
    with pytest.raises(ShapeError, match="high bands"):
        inverse_haar(torch.zeros(1, 3, 4, 4), torch.zeros(1, 9, 4, 4))


def test_each_picture_of_a_batch_has_its_own_blur():
    images = torch.rand(3, 3, 20, 30)
    sigmas, sizes = torch.tensor([0.8, 2.0, 3.0]), torch.tensor([5, 9, 19])
    together = gaussian_blur(images, sigmas, sizes)
    for i in range(3):
        alone = gaussian_blur(images[i : i + 1], sigmas[i : i + 1], sizes[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], atol=1e-6, rtol=0)
    flat = torch.full((1, 1, 12, 12), 0.3)
    torch.testing.assert_close(gaussian_blur(flat, sigmas[:1], sizes[:1]), flat)
