"""JPEG as arithmetic and as codec: close to each other, worse with lower quality, and with a gradient."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from facerestore.core.errors import ConfigError, ShapeError
from facerestore.degradations.jpeg import jpeg, real_jpeg, smooth_round
from facerestore.imaging.color_fix import luma


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * (a - b).square().mean().log10())


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 95])
def test_the_arithmetic_is_close_to_the_codec(portrait: torch.Tensor, quality: int) -> None:
    """Libjpeg rounds what it computes, and smooths the chroma that it enlarges; grey has none."""
    real, ours = real_jpeg(portrait, [quality]), jpeg(portrait, [quality])
    assert psnr(ours, real) > 35
    assert psnr(ours, portrait) == pytest.approx(psnr(real, portrait), abs=1.5)
    grey = luma(portrait)
    assert psnr(jpeg(grey, [quality]), real_jpeg(grey, [quality])) > 38


@pytest.mark.parametrize("size", [(40, 56), (33, 47), (5, 3), (1, 1)])
def test_any_size(portrait: torch.Tensor, size: tuple[int, int]) -> None:
    part = portrait[..., 60 : 60 + size[0], 60 : 60 + size[1]]
    assert jpeg(part, [60.0]).shape == part.shape
    assert real_jpeg(part, [60.0]).shape == part.shape
    assert psnr(jpeg(part, [90.0]), part) > 25


def test_edges_that_fill_no_block_stay_as_bright_as_they_are() -> None:
    grey = torch.full((1, 3, 41, 41), 0.75)
    torch.testing.assert_close(jpeg(grey, [50.0]), grey, atol=0.01, rtol=0)


@pytest.mark.parametrize("code", [jpeg, real_jpeg])
def test_each_picture_has_its_own_quality(portrait: torch.Tensor, code) -> None:
    batch = portrait.expand(4, -1, -1, -1)
    qualities = [5.0, 20.0, 60.0, 95.0]
    together = code(batch, qualities)
    damage = [psnr(one, portrait[0]) for one in together]
    assert damage == sorted(damage)
    for one, quality in zip(together, qualities, strict=True):
        torch.testing.assert_close(code(portrait, [quality])[0], one, atol=1e-5, rtol=0)


def test_the_best_quality_is_no_division_by_zero(portrait: torch.Tensor) -> None:
    assert psnr(jpeg(portrait, [100.0]), portrait) > 34  # what is left is the averaging of chroma
    grey = portrait.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    assert psnr(jpeg(grey, [100.0]), grey) > 55


def test_the_codec_is_pillows(portrait: torch.Tensor) -> None:
    pixels = (portrait[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=40)
    expected = np.array(Image.open(stream))
    assert np.array_equal((real_jpeg(portrait, [40.9])[0] * 255).round().permute(1, 2, 0).numpy(), expected)


def test_the_gradient_is_that_of_the_smooth_rounding(portrait: torch.Tensor) -> None:
    """Along a direction, against the difference quotient, in float64 and where nothing is clamped."""
    images = (0.25 + 0.5 * portrait[..., 40:72, 40:72]).double()
    along = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = 1e-7

    def total(x: torch.Tensor) -> torch.Tensor:
        return jpeg(x, [40.0], rounding=smooth_round).square().sum()

    tracked = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(tracked), tracked)
    quotient = (total(images + step * along) - total(images - step * along)) / (2 * step)
    assert gradient.isfinite().all() and gradient.abs().max() > 0
    assert float((gradient * along).sum()) == pytest.approx(float(quotient), rel=1e-4)


def test_plain_rounding_has_no_gradient(portrait: torch.Tensor) -> None:
    tracked = portrait.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(jpeg(tracked, [40.0]).sum(), tracked)
    assert gradient.abs().max() == 0


@pytest.mark.parametrize("code", [jpeg, real_jpeg])
def test_wrong_qualities_are_refused(portrait: torch.Tensor, code) -> None:
    for quality in (0.0, 101.0, float("nan")):
        with pytest.raises(ConfigError, match="1 to 100"):
            code(portrait, [quality])
    with pytest.raises(ShapeError, match="1 qualities"):
        code(portrait, [50.0, 50.0])
