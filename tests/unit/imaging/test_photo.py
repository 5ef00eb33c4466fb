"""A photo: its colours in sRGB, and writing into it without touching anything else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageCms

from facerestore.core.errors import RangeError, ShapeError, UnsupportedImage
from facerestore.imaging import native
from facerestore.imaging.photo import MODES, Photo
from facerestore.imaging.read import read_image

Pattern = Callable[..., NDArray[Any]]
Encode = Callable[..., bytes]

_BOX = (5, 3, 25, 19)
_SIZE = (16, 20)


def _photo(pattern: Pattern, mode: str, dtype: Any = np.uint8) -> Photo:
    return Photo(pixels=pattern(24, 32, MODES[mode][2], dtype), mode=mode)


def _mask() -> torch.Tensor:
    """1 in the middle, falling to 0, and exactly 0 along the edges."""
    mask = torch.zeros(1, 1, *_SIZE)
    mask[..., 2:14, 2:18] = 0.4
    mask[..., 4:12, 4:16] = 1
    return mask


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("mode", list(MODES))
def test_blending_touches_nothing_outside_the_mask_and_reaches_the_colour_inside(
    mode: str, dtype: Any, pattern: Pattern
) -> None:
    photo = _photo(pattern, mode, dtype)
    before = photo.pixels.copy()
    work = photo.copy()
    wanted = torch.rand(1, 3, *_SIZE, generator=torch.Generator().manual_seed(0))
    work.blend(_BOX, wanted, _mask())
    assert np.array_equal(photo.pixels, before)
    touched = np.zeros((24, 32), bool)
    touched[3:19, 5:25] = _mask()[0, 0].numpy() > 0
    assert np.array_equal(work.pixels[~touched], before[~touched])
    if MODES[mode][1] < MODES[mode][2]:
        assert np.array_equal(work.pixels[..., -1], before[..., -1])
    result = work.srgb(_BOX)[..., 4:12, 4:16]
    expected = wanted[..., 4:12, 4:16]
    if MODES[mode][0] == "L":
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        expected = (expected * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    tolerance = 1.01 / np.iinfo(dtype).max
    assert (result - expected).abs().max() <= (max(tolerance, 1e-3) if mode == "CMYK" else tolerance)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("mode", list(MODES))
def test_what_did_not_change_stays_exactly(mode: str, dtype: Any, pattern: Pattern) -> None:
    photo = _photo(pattern, mode, dtype)
    work = photo.copy()
    work.blend(_BOX, photo.srgb(_BOX), torch.rand(1, 1, *_SIZE, generator=torch.Generator().manual_seed(1)))
    assert np.array_equal(work.pixels, photo.pixels)


def test_half_a_mask_is_half_the_way() -> None:
    work = Photo.from_array(np.full((4, 4, 3), 100, np.uint8)).copy()
    work.pixels[0, 0] = (100, 101, 140)  # not grey
    work.blend((1, 1, 3, 3), torch.full((1, 3, 2, 2), 200 / 255), torch.full((1, 1, 2, 2), 0.5))
    assert work.pixels[1:3, 1:3].min() == work.pixels[1:3, 1:3].max() == 150


def test_16_bits_keep_their_finest_bits_where_the_mask_is_thin(pattern: Pattern) -> None:
    photo = _photo(pattern, "RGB", np.uint16)
    work = photo.copy()
    wanted = (photo.srgb(_BOX) + 0.01).clamp(0, 1)
    work.blend(_BOX, wanted, torch.full((1, 1, *_SIZE), 1e-3))
    change = work.pixels[3:19, 5:25].astype(int) - photo.pixels[3:19, 5:25]
    assert 0 < change.max() <= 1  # a thousandth of 655


def test_grey_stays_grey_in_any_mode(pattern: Pattern) -> None:
    grey = pattern(24, 32, 1)
    for photo in (
        Photo(pixels=grey, mode="L"),
        Photo(pixels=np.repeat(grey, 3, axis=2), mode="RGB"),
        Photo(pixels=np.concatenate([np.zeros((24, 32, 3), np.uint8), grey], axis=2), mode="CMYK"),
    ):
        assert photo.is_grey
        work = photo.copy()
        work.blend(_BOX, torch.rand(1, 3, *_SIZE, generator=torch.Generator().manual_seed(2)), _mask())
        assert work.is_grey and not np.array_equal(work.pixels, photo.pixels)
    assert not _photo(pattern, "RGB").is_grey
    sepia = np.stack([grey[..., 0], grey[..., 0] // 2, grey[..., 0] // 4], -1)
    assert not Photo.from_array(sepia).is_grey


def test_colours_of_a_profile_go_through_it(wide_gamut: bytes, pattern: Pattern) -> None:
    photo = replace(_photo(pattern, "RGB"), icc_profile=wide_gamut)
    pixel = (200, 80, 60)
    flat = replace(photo, pixels=np.full((4, 4, 3), pixel, np.uint8))
    # Adobe RGB (1998) to XYZ to sRGB, both D65, by the published matrices and curves.
    linear = (np.array(pixel) / 255) ** 2.2
    to_xyz = [[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]]
    to_rgb = [[3.24045, -1.53714, -0.49853], [-0.96927, 1.87601, 0.04156], [0.05564, -0.20403, 1.05723]]
    srgb = np.array(to_rgb) @ np.array(to_xyz) @ linear
    curve = np.where(srgb > 0.0031308, 1.055 * srgb.clip(1e-9) ** (1 / 2.4) - 0.055, 12.92 * srgb)
    expected = curve.clip(0, 1)
    assert flat.srgb()[0, :, 0, 0].numpy() == pytest.approx(expected, abs=2.5 / 255)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_blending_through_a_profile(dtype: Any, wide_gamut: bytes, pattern: Pattern) -> None:
    photo = replace(_photo(pattern, "RGB", dtype), icc_profile=wide_gamut)
    work = photo.copy()
    work.blend(_BOX, photo.srgb(_BOX), torch.ones(1, 1, *_SIZE))
    assert np.array_equal(work.pixels, photo.pixels)
    wanted = (photo.srgb(_BOX) * 0.8 + 0.1).clamp(0, 1)
    work.blend(_BOX, wanted, torch.ones(1, 1, *_SIZE))
    inside = (photo.srgb(_BOX) > 0.05) & (photo.srgb(_BOX) < 0.95)
    assert (work.srgb(_BOX) - wanted).abs()[inside].mean() < 1.5 / 255
    outside = np.ones((24, 32), bool)
    outside[3:19, 5:25] = False
    assert np.array_equal(work.pixels[outside], photo.pixels[outside])


def test_a_colour_outside_srgb_survives_an_unchanged_crop(wide_gamut: bytes) -> None:
    green = np.full((6, 6, 3), (20, 250, 20), np.uint8)
    photo = replace(Photo.from_array(green), icc_profile=wide_gamut)
    work = photo.copy()
    work.blend((0, 0, 6, 6), photo.srgb(), torch.ones(1, 1, 6, 6))
    assert np.array_equal(work.pixels, green)


def test_a_grey_profile(dark_grey: bytes, pattern: Pattern) -> None:
    photo = replace(_photo(pattern, "L"), icc_profile=dark_grey)
    plain = replace(photo, icc_profile=None)
    assert (photo.srgb() - plain.srgb()).mean() > 0.05  # gamma 1.4 is brighter
    work = photo.copy()
    work.blend(_BOX, torch.full((1, 3, *_SIZE), 0.6), torch.ones(1, 1, *_SIZE))
    assert (work.srgb(_BOX) - 0.6).abs().max() < 3 / 255


def test_an_srgb_profile_costs_nothing_and_changes_nothing(pattern: Pattern) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert native.profile_kind(profile, "RGB") == "srgb"
    photo = replace(_photo(pattern, "RGB"), icc_profile=profile)
    assert torch.equal(photo.srgb(), _photo(pattern, "RGB").srgb())


@pytest.mark.parametrize(
    "spoil", [lambda p: b"nonsense", lambda p: p[:200], lambda p: p[:16] + b"CMYK" + p[20:]]
)
def test_a_broken_profile_is_srgb_with_a_note(
    spoil: Callable[[bytes], bytes], wide_gamut: bytes, pattern: Pattern, encode: Encode
) -> None:
    image = Image.fromarray(pattern(8, 8))
    photo = read_image(encode(image, "PNG", icc_profile=spoil(wide_gamut)))
    assert photo.icc_profile is None and "colour profile" in photo.notes[0]
    assert torch.equal(photo.srgb(), Photo.from_array(pattern(8, 8)).srgb())
    assert read_image(encode(image, "PNG", icc_profile=wide_gamut)).icc_profile == wide_gamut


def test_plain_cmyk_keeps_black_as_far_as_the_colour_allows() -> None:
    pixels = np.full((2, 2, 4), (10, 60, 90, 100), np.uint8)
    work = Photo(pixels=pixels, mode="CMYK").copy()
    box, mask = (0, 0, 2, 2), torch.ones(1, 1, 2, 2)
    work.blend(box, torch.tensor([0.5, 0.35, 0.3]).view(1, 3, 1, 1).expand(1, 3, 2, 2), mask)
    assert work.pixels[0, 0, 3] == 100
    work.blend(box, torch.full((1, 3, 2, 2), 0.9), mask)
    assert work.pixels[0, 0, 3] < 30
    assert (work.srgb() - 0.9).abs().max() < 1 / 255


def test_cmyk_with_a_profile(inks: bytes, pattern: Pattern) -> None:
    assert native.profile_kind(inks, "CMYK") == "other"
    photo = replace(_photo(pattern, "CMYK"), icc_profile=inks)
    plain = _photo(pattern, "CMYK").srgb()
    assert (photo.srgb() - plain).abs().mean() < 0.03  # the profile says plain inks, in coarse tables
    work = photo.copy()
    work.blend(_BOX, photo.srgb(_BOX), torch.ones(1, 1, *_SIZE))
    assert np.array_equal(work.pixels, photo.pixels)
    wanted = torch.rand(1, 3, *_SIZE, generator=torch.Generator().manual_seed(3)) * 0.9 + 0.05
    work.blend(_BOX, wanted, _mask())
    half = photo.srgb(_BOX) * (1 - _mask()) + wanted * _mask()  # also in between: nothing shines at the edge
    error = (work.srgb(_BOX) - half).abs()
    assert error.mean() < 1 / 255 and error.max() < 8 / 255


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("mode", list(MODES))
def test_reducing_keeps_means_and_places(mode: str, dtype: Any) -> None:
    height, width = 301, 403
    pixels = np.zeros((height, width, MODES[mode][2]), dtype)
    pixels[150:, 200:] = np.iinfo(dtype).max // 2
    photo = Photo(pixels=pixels, mode=mode)
    small, scale = photo.reduced_srgb(100)
    assert max(small.shape) == 100 and scale == 100 / 403
    whole = photo.srgb()
    assert small.mean().item() == pytest.approx(whole.mean().item(), abs=0.01)
    edge = int(np.abs(np.diff(small[0, 0, -5].numpy())).argmax())
    assert (edge + 0.5 + 0.5) / scale - 0.5 == pytest.approx(199.5, abs=3)


def test_a_small_picture_is_not_reduced(pattern: Pattern) -> None:
    photo = _photo(pattern, "RGB")
    small, scale = photo.reduced_srgb(32)
    assert scale == 1.0 and torch.equal(small, photo.srgb())


def test_a_region_is_the_same_as_that_part_of_the_whole(pattern: Pattern, wide_gamut: bytes) -> None:
    for photo in (_photo(pattern, "RGB"), replace(_photo(pattern, "RGB"), icc_profile=wide_gamut)):
        assert torch.equal(photo.srgb(_BOX), photo.srgb()[..., 3:19, 5:25])


@pytest.mark.parametrize("box", [(0, 0, 33, 4), (-1, 0, 4, 4), (4, 4, 4, 8), (0, 20, 4, 25)])
def test_a_box_outside_is_refused(box: tuple[int, int, int, int], pattern: Pattern) -> None:
    with pytest.raises(ShapeError, match="inside 32 x 24"):
        _photo(pattern, "RGB").srgb(box)


def test_blending_refuses_what_does_not_fit(pattern: Pattern) -> None:
    photo = _photo(pattern, "RGB").copy()
    good, mask = torch.zeros(1, 3, *_SIZE), torch.ones(1, 1, *_SIZE)
    with pytest.raises(ShapeError):
        photo.blend(_BOX, good[..., :-1], mask)
    with pytest.raises(ShapeError):
        photo.blend(_BOX, good, mask[..., :-1])
    with pytest.raises(RangeError):
        photo.blend(_BOX, good * float("nan"), mask)
    assert np.array_equal(photo.pixels, _photo(pattern, "RGB").pixels)


def test_pillow_images_keep_mode_and_metadata(pattern: Pattern, wide_gamut: bytes) -> None:
    for mode in MODES:
        photo = replace(_photo(pattern, mode), dpi=(300.0, 300.0))
        image = photo.to_pil()
        assert image.mode == mode and image.info["dpi"] == (300.0, 300.0)
        assert np.array_equal(np.asarray(image), photo.to_array())
    deep = _photo(pattern, "RGB", np.uint16)
    assert np.abs(np.asarray(deep.to_pil()) * 257.0 - deep.pixels).max() <= 128.5
    grey = _photo(pattern, "L", np.uint16)
    assert np.array_equal(np.asarray(grey.to_pil()), grey.to_array())


def test_replacing_pixels_keeps_the_rest(pattern: Pattern) -> None:
    photo = replace(_photo(pattern, "RGB"), dpi=(72.0, 72.0))
    large = photo.replace_pixels(pattern(48, 64))
    assert (large.height, large.dpi) == (48, photo.dpi)
    with pytest.raises(ShapeError):
        photo.replace_pixels(pattern(8, 8, 4))
    with pytest.raises(UnsupportedImage):
        photo.replace_pixels(pattern(8, 8).astype(np.float32))
    with pytest.raises(UnsupportedImage):
        Photo(pixels=pattern(8, 8), mode="HSV")


def test_adobe_cmyk_jpeg_is_not_inverted(encode: Encode) -> None:
    inks = Image.new("CMYK", (32, 32), (20, 200, 180, 10))
    data = encode(inks, "JPEG", quality=100)
    assert b"Adobe" in data
    photo = read_image(data)
    assert photo.mode == "CMYK" and np.abs(photo.pixels[0, 0].astype(int) - (20, 200, 180, 10)).max() <= 2
    red, green, blue = photo.srgb()[0, :, 0, 0].tolist()
    assert red > 0.8 and green < 0.3 and blue < 0.4
