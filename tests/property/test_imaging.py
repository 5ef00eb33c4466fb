"""What must hold for every picture: lossless files, blending without a change, orientation."""

import io
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from facerestore.imaging.exif import upright
from facerestore.imaging.photo import MODES, Photo
from facerestore.imaging.png import write_png
from facerestore.imaging.range import from_signed, from_uint8, to_signed, to_uint8
from facerestore.imaging.read import read_image
from facerestore.imaging.tiff import write_tiff


@st.composite
def photos(
    draw: st.DrawFn, modes: tuple[str, ...] = tuple(MODES), depths: tuple[int, ...] = (8, 16)
) -> Photo:
    mode = draw(st.sampled_from(modes))
    dtype = np.uint8 if draw(st.sampled_from(depths)) == 8 else np.uint16
    shape = (draw(st.integers(1, 23)), draw(st.integers(1, 23)), MODES[mode][2])
    return Photo(pixels=draw(hnp.arrays(dtype, shape)), mode=mode)


@given(photos(modes=("L", "LA", "RGB", "RGBA")))
def test_a_png_holds_every_picture(photo: Photo) -> None:
    stream = io.BytesIO()
    write_png(stream, photo.pixels, photo.mode)
    again = read_image(stream.getvalue())
    assert again.mode == photo.mode and np.array_equal(again.pixels, photo.pixels)


@given(photos(), st.booleans())
def test_a_tiff_holds_every_picture(photo: Photo, compressed: bool) -> None:
    if (photo.mode, photo.bit_depth) == ("LA", 16):
        return  # written as RGBA
    stream = io.BytesIO()
    write_tiff(stream, photo.pixels, photo.mode, compressed=compressed)
    again = read_image(stream.getvalue())
    assert again.mode == photo.mode and np.array_equal(again.pixels, photo.pixels)


@given(photos(), st.data())
def test_an_unchanged_crop_changes_nothing(photo: Photo, data: st.DataObject) -> None:
    x0, y0 = data.draw(st.integers(0, photo.width - 1)), data.draw(st.integers(0, photo.height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, photo.width)), data.draw(st.integers(y0 + 1, photo.height))
    mask = data.draw(hnp.arrays(np.float32, (1, 1, y1 - y0, x1 - x0), elements=st.floats(0, 1, width=32)))
    work = photo.copy()
    work.blend((x0, y0, x1, y1), photo.srgb((x0, y0, x1, y1)), torch.from_numpy(mask))
    assert np.array_equal(work.pixels, photo.pixels)


@given(photos(), st.floats(0, 1), st.data())
def test_pixels_outside_the_mask_and_alpha_never_change(
    photo: Photo, level: float, data: st.DataObject
) -> None:
    mask = data.draw(hnp.arrays(np.bool_, (photo.height, photo.width)))
    work = photo.copy()
    new = torch.full((1, 3, photo.height, photo.width), level)
    work.blend((0, 0, photo.width, photo.height), new, torch.from_numpy(mask)[None, None].float())
    assert np.array_equal(work.pixels[~mask], photo.pixels[~mask])
    colours = MODES[photo.mode][1]
    assert np.array_equal(work.pixels[..., colours:], photo.pixels[..., colours:])


@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9)))
def test_turning_by_an_orientation_and_by_its_inverse(pixels: NDArray[Any]) -> None:
    inverse = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    for orientation, back in inverse.items():
        assert np.array_equal(upright(upright(pixels, orientation), back), pixels)


@given(hnp.arrays(np.uint8, (1, 3, 5, 7)))
def test_ranges(pixels: NDArray[Any]) -> None:
    images = torch.from_numpy(pixels)
    assert torch.equal(to_uint8(from_uint8(images)), images)
    assert torch.equal(to_uint8(from_signed(to_signed(from_uint8(images)))), images)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"GIF89a", b"BM"]),
)
def test_nonsense_is_a_typed_error(data: bytes, start: bytes) -> None:
    from facerestore.core.errors import ImageError

    try:
        read_image(start + data)
    except ImageError as error:
        assert "<bytes>" in str(error)


@given(st.integers(0, 2000), st.integers(0, 255), st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP", "GIF"]))
def test_a_spoilt_byte_is_a_picture_or_a_typed_error(place: int, value: int, format: str) -> None:
    from facerestore.core.errors import ImageError

    stream = io.BytesIO()
    Image.fromarray(np.arange(2700, dtype=np.uint16).astype(np.uint8).reshape(30, 30, 3)).save(stream, format)
    data = bytearray(stream.getvalue())
    data[place % len(data)] = value
    try:
        photo = read_image(bytes(data), max_pixels=10**6)
    except ImageError as error:
        assert "<bytes>" in str(error)
    else:
        assert photo.height * photo.width <= 10**6
