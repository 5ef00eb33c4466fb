"""Reading: every kind of picture, and everything that is none."""

import io
import os
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from facerestore.core.errors import (
    ImageTooLarge,
    ImageUnreadable,
    RangeError,
    ShapeError,
    UnsupportedImage,
)
from facerestore.imaging.photo import Photo
from facerestore.imaging.read import read_image

Pattern = Callable[..., NDArray[Any]]
Encode = Callable[..., bytes]


def _png_header(width: int, height: int) -> bytes:
    """A PNG of this size that ends where its pixels begin, so that decoding it would fail."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    head = struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", bytes(8))


def _faulty_files(pattern: Pattern, encode: Encode) -> dict[str, tuple[bytes, type[Exception]]]:
    jpeg = encode(Image.fromarray(pattern(64, 64)), "JPEG")
    png = encode(Image.fromarray(pattern(64, 64)), "PNG")
    return {
        "truncated.jpg": (jpeg[: len(jpeg) // 2], ImageUnreadable),
        "header_only.jpg": (jpeg[:20], ImageUnreadable),
        "truncated.png": (png[: len(png) // 2], ImageUnreadable),
        "text.jpg": (b"Dear reader, this is no picture.\n" * 20, ImageUnreadable),
        "empty.jpg": (b"", ImageUnreadable),
        "one_byte.png": (b"\x89", ImageUnreadable),
        "page.png": (b"<html><body>404</body></html>", ImageUnreadable),
        "huge.png": (_png_header(30_000, 30_000), ImageTooLarge),
        "raw.dng": (jpeg, UnsupportedImage),
    }


def test_faulty_files_are_named(tmp_path: Path, pattern: Pattern, encode: Encode) -> None:
    for name, (data, error) in _faulty_files(pattern, encode).items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(error, match=name):
            read_image(path)


def test_missing_files_folders_and_pipes_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in (("none.jpg", "no such file"), ("folder.jpg", "folder"), ("pipe.jpg", "device")):
        with pytest.raises(ImageUnreadable, match=rf"{name}.*{reason}"):
            read_image(tmp_path / name)
    with pytest.raises(ImageUnreadable):
        read_image("a\0b.jpg")


def test_the_limit_is_checked_before_decoding_and_can_be_raised(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    path.write_bytes(_png_header(30_000, 30_000))
    with pytest.raises(ImageTooLarge, match="max_pixels=900000000"):
        read_image(path)
    with pytest.raises(ImageTooLarge, match="limit of 80 pixels"):
        read_image(Image.new("RGB", (9, 9)), max_pixels=80)
    assert read_image(Image.new("RGB", (9, 9)), max_pixels=81).width == 9
    with pytest.raises(ImageUnreadable):  # below the limit it is decoded, and there is nothing to decode
        read_image(_png_header(30, 30), max_pixels=900)


@pytest.mark.parametrize("limit", [None, 10])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "GIF", "BMP"])
def test_pillows_own_limit_is_neither_asked_nor_changed(
    limit: int | None, format: str, pattern: Pattern, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(Image.fromarray(pattern(40, 50)), format)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(data).width == 50
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_format_that_asks_pillows_limit_itself_names_it(
    pattern: Pattern, encode: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(Image.fromarray(pattern(40, 50)), "WEBP")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageTooLarge, match="MAX_IMAGE_PIXELS"):
        read_image(data)


@pytest.mark.parametrize(
    ("mode", "format", "expected"),
    [
        ("1", "PNG", "L"),
        ("L", "PNG", "L"),
        ("LA", "PNG", "LA"),
        ("P", "PNG", "RGB"),
        ("P", "GIF", "RGB"),
        ("RGB", "BMP", "RGB"),
        ("RGBA", "PNG", "RGBA"),
        ("RGBA", "WEBP", "RGBA"),
        ("CMYK", "TIFF", "CMYK"),
        ("YCbCr", "TIFF", "RGB"),
    ],
)
def test_modes(mode: str, format: str, expected: str, pattern: Pattern, encode: Encode) -> None:
    source = Image.fromarray(pattern(20, 30, 4 if mode == "RGBA" else 3)).convert(mode)
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    photo = read_image(encode(source, format, **options))
    assert (photo.mode, photo.bit_depth, photo.height, photo.width) == (expected, 8, 20, 30)
    truth = np.asarray(source.convert(expected))
    assert np.abs(photo.to_array().astype(int) - truth).max() <= (1 if mode == "YCbCr" else 0)
    assert bool(photo.notes) == (mode in ("1", "P", "YCbCr"))


def test_one_pixel() -> None:
    photo = read_image(Image.new("RGB", (1, 1), (1, 2, 3)))
    assert photo.pixels.tolist() == [[[1, 2, 3]]]
    assert photo.reduced_srgb(64)[0].shape == (1, 3, 1, 1)


def test_a_palette_with_transparency_becomes_rgba_with_a_note(pattern: Pattern, encode: Encode) -> None:
    source = Image.fromarray(pattern(20, 30)).quantize(16)
    photo = read_image(encode(source, "PNG", transparency=source.getpixel((3, 4))))
    assert photo.mode == "RGBA" and "palette" in photo.notes[0]
    assert photo.pixels[4, 3, 3] == 0 and photo.pixels[..., 3].max() == 255


def test_one_transparent_colour_becomes_alpha(encode: Encode) -> None:
    source = Image.new("RGB", (4, 4), (9, 9, 9))
    source.putpixel((1, 2), (200, 0, 0))
    photo = read_image(encode(source, "PNG", transparency=(200, 0, 0)))
    assert photo.mode == "RGBA" and photo.pixels[2, 1, 3] == 0 and photo.pixels[0, 0, 3] == 255


def test_16_bit_grey(pattern: Pattern, encode: Encode) -> None:
    pixels = pattern(20, 30, 1, np.uint16)[..., 0]
    for format in ("PNG", "TIFF"):
        photo = read_image(encode(Image.fromarray(pixels), format))
        assert photo.mode == "L" and photo.bit_depth == 16 and np.array_equal(photo.pixels[..., 0], pixels)


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (3, {"photometric": "rgb"}),
        (3, {"photometric": "rgb", "byteorder": ">"}),
        (3, {"photometric": "rgb", "byteorder": ">", "compression": "zlib", "predictor": True}),
        (3, {"photometric": "rgb", "compression": "zlib", "predictor": True}),
        (3, {"photometric": "rgb", "tile": (16, 16)}),
        (4, {"photometric": "rgb", "extrasamples": [2]}),
        (4, {"photometric": "rgb", "extrasamples": [0]}),
        (4, {"photometric": "separated"}),
    ],
)
def test_16_bit_colour_tiff_keeps_16_bits(channels: int, options: dict[str, Any], pattern: Pattern) -> None:
    tifffile = pytest.importorskip("tifffile", reason="writes such files")
    pixels = pattern(20, 30, channels, np.uint16)
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    photo = read_image(stream.getvalue())
    kept = 3 if options.get("extrasamples") == [0] else channels
    assert photo.bit_depth == 16 and np.array_equal(photo.pixels, pixels[..., :kept])
    assert photo.mode == ("CMYK" if options["photometric"] == "separated" else "RGB" if kept == 3 else "RGBA")


def test_16_bit_tiff_with_alpha_multiplied_in(pattern: Pattern) -> None:
    tifffile = pytest.importorskip("tifffile", reason="writes such a file")
    pixels = pattern(20, 30, 4, np.uint16)
    alpha = pixels[..., 3:] / 65535
    stored = np.concatenate([np.rint(pixels[..., :3] * alpha).astype(np.uint16), pixels[..., 3:]], axis=2)
    stream = io.BytesIO()
    tifffile.imwrite(stream, stored, photometric="rgb", extrasamples=[1])
    photo = read_image(stream.getvalue())
    assert np.array_equal(photo.pixels[..., 3], pixels[..., 3])
    assert np.abs(photo.pixels[..., :3] - pixels[..., :3].astype(float)).max() <= 0.5 / alpha.min() + 1


def test_16_bit_tiff_in_planes_is_refused(pattern: Pattern) -> None:
    tifffile = pytest.importorskip("tifffile", reason="writes such a file")
    planes = np.ascontiguousarray(pattern(20, 30, 3, np.uint16).transpose(2, 0, 1))
    stream = io.BytesIO()
    tifffile.imwrite(stream, planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(UnsupportedImage, match="planes"):
        read_image(stream.getvalue())


def test_16_bit_tiff_with_white_at_0_is_inverted(pattern: Pattern) -> None:
    tifffile = pytest.importorskip("tifffile", reason="writes such a file")
    pixels = pattern(20, 30, 1, np.uint16)[..., 0]
    stream = io.BytesIO()
    tifffile.imwrite(stream, 65535 - pixels, photometric="miniswhite")
    assert np.array_equal(read_image(stream.getvalue()).pixels[..., 0], pixels)


def test_integers_and_floats_become_16_bit_grey_where_their_meaning_is_clear() -> None:
    ramp = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    photo = read_image(Image.fromarray(ramp))
    assert photo.bit_depth == 16 and photo.notes and photo.pixels.max() == 65535
    assert read_image(Image.fromarray((ramp * 40_000).astype(np.int32))).pixels.max() == 40_000
    for values in (ramp * 255, ramp - 1, ramp * np.nan, (ramp * 70_000).astype(np.int32)):
        with pytest.raises(UnsupportedImage, match="black and white"):
            read_image(Image.fromarray(values))


def test_lab_is_refused() -> None:
    with pytest.raises(UnsupportedImage, match="LAB"):
        read_image(Image.new("LAB", (4, 4)))


def _frames(pattern: Pattern, count: int) -> list[Image.Image]:
    return [Image.fromarray(np.roll(pattern(24, 32), 5 * index, axis=1)) for index in range(count)]


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "MPO", "AVIF"])
def test_the_first_of_several_pictures_with_a_note(format: str, pattern: Pattern, encode: Encode) -> None:
    first, *others = _frames(pattern, 3)
    options = {"lossless": True} if format == "WEBP" else {}
    photo = read_image(encode(first, format, save_all=True, append_images=others, **options))
    assert photo.notes[0].startswith("first of 3 pictures")
    assert np.abs(photo.pixels.astype(int) - np.asarray(first)).mean() < 12  # GIF and JPEG are lossy
    assert photo.format == ("JPEG" if format == "MPO" else format)


def test_names_in_any_script(tmp_path: Path, pattern: Pattern, encode: Encode) -> None:
    data = encode(Image.fromarray(pattern(8, 8)), "PNG")
    for name in ("семья.png", "家族 写真.png", "عائلة.png", "👪 it's [1] #2%.png", "e\u0301.png", "-rf.png"):
        path = tmp_path / name
        path.write_bytes(data)
        assert read_image(path).path == path


def test_avif(pattern: Pattern, encode: Encode) -> None:
    photo = read_image(encode(Image.fromarray(pattern(24, 32)), "AVIF", quality=95))
    assert (photo.format, photo.mode, photo.width) == ("AVIF", "RGB", 32)


def test_heic_without_its_plugin_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnsupportedImage, match="pip install pillow-heif"):
        read_image(struct.pack(">L", 28) + b"ftypheic" + bytes(60))


def test_heic_with_its_plugin_stands_upright_and_registers_nothing(pattern: Pattern) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="reads HEIC")
    exif = Image.Exif()
    exif[0x0112] = 6
    file = pillow_heif.from_pillow(Image.fromarray(pattern(40, 60)))
    file.info["exif"] = exif.tobytes()
    stream = io.BytesIO()
    file.save(stream, quality=90)
    photo = read_image(stream.getvalue())
    assert (photo.height, photo.width) == (60, 40)
    assert np.abs(photo.pixels.astype(int) - np.rot90(pattern(40, 60), -1)).mean() < 8
    assert "HEIF" not in Image.OPEN


def test_pictures_from_memory(pattern: Pattern) -> None:
    pixels = pattern(20, 30)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    photo = read_image(tensor)
    assert photo.bit_depth == 16 and torch.equal(photo.srgb(), tensor)  # 16 bits hold k/255 exactly
    assert np.array_equal(read_image(pixels).pixels, pixels)
    assert read_image(pixels[..., 0]).mode == "L"
    assert read_image(photo) is photo
    source = Image.fromarray(pixels)
    assert np.array_equal(read_image(source).pixels, pixels) and source.mode == "RGB"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (np.zeros((4, 4, 5), np.uint8), ShapeError),
        (np.zeros((1, 4, 4, 3), np.uint8), ShapeError),
        (np.zeros((0, 4, 3), np.uint8), ShapeError),
        (np.zeros((4, 4, 3), np.float32), UnsupportedImage),
        (torch.zeros(2, 3, 4, 4), ShapeError),
        (torch.zeros(1, 1, 4, 4), ShapeError),
        (torch.full((1, 3, 4, 4), float("nan")), RangeError),
        (torch.full((1, 3, 4, 4), 255.0), RangeError),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), RangeError),
        (17, UnsupportedImage),
    ],
)
def test_what_is_no_picture_is_refused(source: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_image(source)


def test_reading_does_not_share_pixels_with_a_pillow_image(pattern: Pattern) -> None:
    source = Image.fromarray(pattern(8, 8))
    photo: Photo = read_image(source).copy()
    photo.blend((0, 0, 8, 8), torch.ones(1, 3, 8, 8), torch.ones(1, 1, 8, 8))
    assert np.array_equal(np.asarray(source), pattern(8, 8))
