"""Kernels and filters: what they sum to and leave alone, both ways of filtering, pictures of any size."""

import math

import pytest
import torch
import torch.nn.functional as F

from facerestore.core.errors import ConfigError, ShapeError
from facerestore.degradations import filtering
from facerestore.degradations.filtering import filter2d
from facerestore.degradations.kernels import Kernel, KernelRange, blur_kernels
from facerestore.degradations.presets import MIXED_SHAPES
from facerestore.degradations.usm import sharpen

MIXED = KernelRange(
    sizes=(7, 13, 21),
    shapes=MIXED_SHAPES,
    weights=(1.0,) * 6,
    sigma=(0.2, 5.0),
    beta_generalized=(0.5, 4.0),
    beta_plateau=(1.0, 2.0),
    sinc_probability=0.2,
)


def drawn(count: int) -> list[Kernel]:
    dice = torch.Generator().manual_seed(0)
    return [MIXED.draw(dice) for _ in range(count)]


def test_kernels_sum_to_one_and_are_symmetric_about_their_centre() -> None:
    kernels = drawn(64)
    assert {kernel.shape for kernel in kernels} == {*MIXED_SHAPES, "sinc"}
    values = blur_kernels(kernels)
    torch.testing.assert_close(values.sum((1, 2)), torch.ones(64), atol=1e-6, rtol=0)
    torch.testing.assert_close(values, values.flip(1, 2), atol=1e-7, rtol=0)
    for kernel, value in zip(kernels, values, strict=True):
        margin = (21 - kernel.size) // 2
        value[margin : 21 - margin, margin : 21 - margin] = 0
        assert value.abs().max() == 0


def test_a_kernel_does_not_depend_on_the_others_of_its_batch() -> None:
    kernels = drawn(16)
    together = blur_kernels(kernels, 21)
    assert all(torch.equal(blur_kernels([k], 21)[0], row) for k, row in zip(kernels, together, strict=True))


def test_widths_and_angle_are_those_asked_for() -> None:
    kernel = Kernel(shape="aniso", size=41, sigma_x=4.0, sigma_y=2.0, theta=math.pi / 6)
    value = blur_kernels([kernel])[0].double()
    axis = torch.arange(41.0).double() - 20
    x, y = axis[None], axis[:, None]
    moments = [float((value * m).sum()) for m in (x * x, x * y, y * y)]
    c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
    expected = [16 * c * c + 4 * s * s, (16 - 4) * c * s, 16 * s * s + 4 * c * c]
    assert moments == pytest.approx(expected, rel=2e-3)


def test_a_sinc_filter_passes_what_is_slow_and_stops_what_is_fast() -> None:
    value = blur_kernels([Kernel(shape="sinc", size=41, cutoff=math.pi / 3)])[0]
    response = torch.fft.fft2(value.double()).abs()
    assert response[0, 0] == pytest.approx(1, abs=1e-6)
    assert response[0, 20] < 0.05


@pytest.mark.parametrize("side", [3, 21])
@pytest.mark.parametrize("size", [(64, 48), (33, 20), (3, 9), (1, 1)])
def test_the_fourier_transform_filters_as_the_sum_does(
    side: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, *size, generator=dice)
    kernels = torch.randn(3, side, side, generator=dice) / side
    monkeypatch.setattr(filtering, "FFT_FROM", 1000)
    direct = filter2d(images, kernels)
    monkeypatch.setattr(filtering, "FFT_FROM", 1)
    torch.testing.assert_close(filter2d(images, kernels), direct, atol=1e-5, rtol=0)
    torch.testing.assert_close(filter2d(images, kernels[:1])[1], filter2d(images[1:2], kernels[:1])[0])
    assert direct.shape == images.shape


@pytest.mark.parametrize("side", [5, 21])
def test_edges_are_mirrored_and_each_picture_has_its_own_kernel(side: int) -> None:
    images = torch.rand(2, 3, 40, 30, generator=torch.Generator().manual_seed(0))
    kernels = blur_kernels([Kernel(shape="iso", size=side, sigma_x=s) for s in (1.0, 3.0)])
    padded = F.pad(images, (side // 2,) * 4, mode="reflect")
    for padded_one, kernel, got in zip(padded, kernels, filter2d(images, kernels), strict=True):
        expected = F.conv2d(padded_one[:, None], kernel[None, None])[:, 0]
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("side", [5, 21])
def test_gradients_pass_through(side: int) -> None:
    images = torch.rand(1, 2, 12, 10, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    kernels = torch.rand(1, side, side, generator=torch.Generator().manual_seed(1)).double()
    assert torch.autograd.gradcheck(lambda x: filter2d(x, kernels), images)


@pytest.mark.parametrize("shape", [(2, 4, 4), (3, 5, 5), (2, 5, 3), (5, 5)])
def test_kernels_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="odd k"):
        filter2d(torch.rand(2, 3, 32, 32), torch.rand(shape))


@pytest.mark.parametrize("change", [{"size": 4}, {"size": -1}, {"sigma_x": 0.0}, {"beta": -1.0}])
def test_kernels_that_cannot_be_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="kernel"):
        Kernel(**({"shape": "iso", "size": 7} | change))


def test_a_range_needs_a_weight_for_each_shape() -> None:
    with pytest.raises(ConfigError, match="weight for each of its 2 shapes"):
        KernelRange(sizes=(7,), weights=(1.0, 1.0, 1.0), sigma=(0.1, 1.0))


def test_sharpening_steepens_edges_and_leaves_flat_parts_alone(portrait: torch.Tensor) -> None:
    flat = torch.full((1, 3, 64, 64), 0.4)
    torch.testing.assert_close(sharpen(flat), flat, atol=1e-6, rtol=0)
    soft = filter2d(portrait, blur_kernels([Kernel(shape="iso", size=21, sigma_x=2.0)]))
    sharp = sharpen(soft)
    assert sharp.min() >= 0 and sharp.max() <= 1
    assert sharp.diff(dim=3).abs().mean() > 1.1 * soft.diff(dim=3).abs().mean()
