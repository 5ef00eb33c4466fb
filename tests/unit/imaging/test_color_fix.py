"""Colour fixes: what they keep, and what they exchange."""

import torch
import torch.nn.functional as F

from facerestore.imaging.color_fix import adain_color_fix, is_grey, luma, wavelet_color_fix


def _picture(seed: int, size: int = 96) -> torch.Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


def _low(x: torch.Tensor, levels: int = 5) -> torch.Tensor:
    """The band split as the paper writes it: one 3 x 3 kernel with growing holes."""
    taps = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).div(16).expand(3, 1, 3, 3)
    for level in range(levels):
        hole = 2**level
        x = F.conv2d(F.pad(x, (hole,) * 4, mode="replicate"), taps, groups=3, dilation=hole)
    return x


def test_wavelet_exchanges_exactly_the_low_band() -> None:
    image, reference = _picture(0), _picture(1)
    expected = image - _low(image) + _low(reference)
    torch.testing.assert_close(wavelet_color_fix(image, reference), expected, atol=1e-5, rtol=0)


def test_wavelet_leaves_an_equal_picture_alone() -> None:
    image = _picture(0)
    assert torch.equal(wavelet_color_fix(image, image), image)


def test_wavelet_moves_a_flat_tint() -> None:
    image = _picture(0)
    tint = torch.tensor([0.1, -0.05, 0.02]).view(1, 3, 1, 1)
    torch.testing.assert_close(wavelet_color_fix(image, image + tint), image + tint, atol=1e-6, rtol=0)


def test_adain_takes_mean_and_deviation() -> None:
    image, reference = _picture(0), 0.2 + 0.5 * _picture(1, 64)
    fixed = adain_color_fix(image, reference)
    torch.testing.assert_close(fixed.mean((2, 3)), reference.mean((2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(fixed.std((2, 3)), reference.std((2, 3)), atol=1e-3, rtol=0)


def test_grey_is_seen_per_picture() -> None:
    image = _picture(0)
    image[1] = luma(image)[1]
    assert is_grey(image).tolist() == [False, True]
    image[1, 0, 3, 3] += 0.02
    assert is_grey(image).tolist() == [False, False]
