"""Degradations against basicsr 1.4.2, live: kernels, filters, noise, JPEG, sharpening, jitter.

Skipped with a reason where basicsr is not installed; `make test` installs it where it can be built.
"""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from facerestore.degradations import (
    Kernel,
    blur_kernels,
    filter2d,
    gaussian_noise,
    jpeg,
    poisson_noise,
    real_jpeg,
    sharpen,
    smooth_round,
)
from facerestore.degradations.jitter import JITTERS
from facerestore.imaging.color_fix import luma
from tests.parity import basicsr_oracle

pytestmark = pytest.mark.live
FACE = Path(__file__).parents[1] / "data" / "faces" / "grace_hopper.jpg"


@pytest.fixture(scope="module")
def basicsr() -> SimpleNamespace:
    try:
        return basicsr_oracle.load()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    with Image.open(FACE) as image:
        pixels = np.array(image.convert("RGB").resize((160, 144)))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def test_the_door_leaves_nothing_behind() -> None:
    import sys

    before = np.geterr()
    try:
        basicsr_oracle.load()
    except ImportError as error:
        pytest.skip(str(error))
    assert "basicsr" not in sys.modules
    assert "torchvision.transforms.functional_tensor" not in sys.modules
    assert np.geterr() == before


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("size", [7, 21, 41])
@pytest.mark.parametrize(("sigma_x", "sigma_y", "theta"), [(0.2, 3.0, 0.5), (10.0, 1.0, -2.5)])
def test_kernels(
    basicsr: SimpleNamespace, isotropic: bool, size: int, sigma_x: float, sigma_y: float, theta: float
) -> None:
    theirs = basicsr.degradations
    numbers = (size, sigma_x, sigma_y, theta)
    end = "iso" if isotropic else "aniso"
    expected = {
        (end, 1.0): theirs.bivariate_Gaussian(*numbers, isotropic=isotropic),
        (f"generalized_{end}", 0.6): theirs.bivariate_generalized_Gaussian(
            *numbers, 0.6, isotropic=isotropic
        ),
        (f"generalized_{end}", 3.7): theirs.bivariate_generalized_Gaussian(
            *numbers, 3.7, isotropic=isotropic
        ),
        (f"plateau_{end}", 1.8): theirs.bivariate_plateau(*numbers, 1.8, isotropic=isotropic),
    }
    for (shape, beta), kernel in expected.items():
        ours = Kernel(
            shape=shape,
            size=size,
            sigma_x=sigma_x,
            sigma_y=sigma_x if isotropic else sigma_y,
            theta=0.0 if isotropic else theta,
            beta=beta,
        )
        np.testing.assert_allclose(blur_kernels([ours])[0], kernel, atol=1e-7, rtol=0)


@pytest.mark.parametrize(("size", "cutoff"), [(7, math.pi / 3), (13, 2.0), (21, math.pi)])
def test_sinc_kernels(basicsr: SimpleNamespace, size: int, cutoff: float) -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = basicsr.degradations.circular_lowpass_kernel(cutoff, size, pad_to=21)
    ours = blur_kernels([Kernel(shape="sinc", size=size, cutoff=cutoff)], 21)[0]
    np.testing.assert_allclose(ours, expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("size", [5, 7, 21, 41])
def test_filtering(basicsr: SimpleNamespace, picture: torch.Tensor, size: int) -> None:
    """Against its torch function, and against OpenCV, which its face datasets call."""
    cv2 = pytest.importorskip("cv2")
    kernels = blur_kernels(
        [Kernel(shape="aniso", size=size, sigma_x=s, sigma_y=2 * s, theta=s) for s in (1.0, 2.5)]
    )
    pair = torch.cat([picture, picture.flip(2)])
    ours = filter2d(pair, kernels)
    torch.testing.assert_close(ours, basicsr.img_process_util.filter2D(pair, kernels), atol=5e-6, rtol=0)
    by_cv2 = cv2.filter2D(picture[0].permute(1, 2, 0).numpy(), -1, kernels[0].numpy())
    np.testing.assert_allclose(ours[0].permute(1, 2, 0), by_cv2, atol=5e-6, rtol=0)


def test_sharpening(basicsr: SimpleNamespace, picture: torch.Tensor) -> None:
    """A pixel may fall on the other side of the threshold; then its neighbourhood moves by a code value."""
    difference = (sharpen(picture) - basicsr.img_process_util.USMSharp()(picture)).abs()
    assert difference.max() < 1 / 255
    assert difference.mean() < 1e-5


def test_gaussian_noise(basicsr: SimpleNamespace, picture: torch.Tensor) -> None:
    """From the same normal deviates: the same noise."""
    for grey in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(7)
            theirs = basicsr.degradations.generate_gaussian_noise_pt(
                picture, torch.tensor([12.0]), torch.tensor([float(grey)])
            )
        ours = gaussian_noise(picture, [12.0], [grey], [torch.Generator().manual_seed(7)])
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=0)


@pytest.mark.parametrize("grey", [False, True])
def test_poisson_noise(basicsr: SimpleNamespace, picture: torch.Tensor, grey: bool) -> None:
    """The deviates differ, so the distributions of the counts are compared."""
    pictures = (picture * 0.999).expand(12, -1, -1, -1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = basicsr.degradations.generate_poisson_noise_pt(
            pictures, torch.full((12,), 1.5), torch.full((12,), float(grey))
        )
    dice = [torch.Generator().manual_seed(seed) for seed in range(12)]
    ours = poisson_noise(pictures, [1.5] * 12, [grey] * 12, dice)
    assert float(ours.std()) == pytest.approx(float(theirs.std()), rel=0.01)
    level = (luma(pictures) if grey else pictures).mul(255).round() / 255
    counts = [((noise / 1.5 + level) * 256).round()[:, : 1 if grey else 3] for noise in (ours, theirs)]
    level = level[:, : 1 if grey else 3]
    for low in (0.0, 0.03, 0.1, 0.3, 0.6):
        where = (level >= low) & (level < low + 0.1)
        test = stats.ks_2samp(*[count[where].numpy() for count in counts])
        assert test.pvalue > 1e-3, low


@pytest.mark.parametrize(
    ("differentiable", "rounding"), [(False, torch.round), (True, smooth_round)], ids=["plain", "smooth"]
)
@pytest.mark.parametrize("qualities", [(30.0, 94.5), (10.0, 50.0)])
def test_jpeg(
    basicsr: SimpleNamespace,
    picture: torch.Tensor,
    differentiable: bool,
    rounding: Callable[[torch.Tensor], torch.Tensor],
    qualities: tuple[float, float],
) -> None:
    """Equal on turned pictures, because its luma table is turned; a coefficient may round the other way."""
    pair = torch.cat([picture, picture.flip(2)])
    turned = pair.transpose(2, 3).contiguous()
    theirs = basicsr.diffjpeg.DiffJPEG(differentiable=differentiable)
    with torch.no_grad():
        expected = theirs(turned, quality=torch.tensor(qualities)).transpose(2, 3)
        ours = jpeg(pair, qualities, rounding=rounding)
    difference = (ours - expected).abs()
    assert (difference > 1e-4).float().mean() < 2e-3
    assert difference.mean() < 1e-4


def test_the_gradient_of_jpeg(basicsr: SimpleNamespace, picture: torch.Tensor) -> None:
    ours, theirs = picture.clone().requires_grad_(), picture.transpose(2, 3).contiguous().requires_grad_()
    jpeg(ours, [55.0], rounding=smooth_round).square().sum().backward()
    basicsr.diffjpeg.DiffJPEG(differentiable=True)(theirs, quality=55.0).square().sum().backward()
    assert ours.grad is not None and theirs.grad is not None
    difference = (ours.grad - theirs.grad.transpose(2, 3)).abs()
    assert difference.median() < 1e-4 * ours.grad.abs().median()


def test_the_codec_is_the_one_of_opencv(basicsr: SimpleNamespace, picture: torch.Tensor) -> None:
    """Two builds of libjpeg: equal up to a few code values."""
    pixels = (picture[0].permute(1, 2, 0).numpy() * 255).round() / 255
    for quality in (30, 80):
        theirs = basicsr.degradations.add_jpg_compression(pixels[..., ::-1].copy(), quality)[..., ::-1]
        ours = real_jpeg(picture, [quality])[0].permute(1, 2, 0).numpy()
        assert np.abs(ours - theirs).mean() < 0.5 / 255


@pytest.mark.parametrize(
    ("name", "amounts"),
    [("brightness", (0.5, 1.5)), ("contrast", (0.5, 1.5)), ("saturation", (0, 1.5)), ("hue", (-0.1, 0.1))],
)
def test_jitter(name: str, amounts: tuple[float, float], picture: torch.Tensor) -> None:
    """Against torchvision, whose first luma weight is 0.2989 and not 0.299."""
    from torchvision.transforms import functional

    for amount in amounts:
        expected = getattr(functional, f"adjust_{name}")(picture, amount)
        torch.testing.assert_close(JITTERS[name](picture, amount), expected, atol=1.5e-4, rtol=0)
