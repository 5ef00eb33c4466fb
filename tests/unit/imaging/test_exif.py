"""Orientation is applied once, and what else the metadata say is kept."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from facerestore.imaging.photo import Photo
from facerestore.imaging.read import read_image
from facerestore.imaging.write import write_image

Pattern = Callable[..., NDArray[Any]]
Encode = Callable[..., bytes]

_ORIENTATION, _MAKER_NOTE = 0x0112, 0x927C


def _tags(orientation: int) -> bytes:
    """An EXIF block with a camera's tags, a maker note and a place."""
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    exif[0x010F] = "maker"
    exif[0x8769] = {0x9003: "2020:01:02 03:04:05", _MAKER_NOTE: b"note\0\1\2\3 of the maker"}
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 12.5)}
    return exif.tobytes()


def _loaded(block: bytes | None) -> Image.Exif:
    exif = Image.Exif()
    exif.load(block or b"")
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_all_orientations_are_applied_once(
    format: str, orientation: int, pattern: Pattern, encode: Encode, tmp_path: Path
) -> None:
    pixels = pattern(24, 40)
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(Image.fromarray(pixels), format, exif=_tags(orientation), **options)
    stored = Image.fromarray(pixels)
    stored.getexif()[_ORIENTATION] = orientation
    truth = np.asarray(ImageOps.exif_transpose(stored)).astype(int)
    photo = read_image(data)
    assert photo.pixels.shape == truth.shape
    assert np.abs(photo.pixels - truth).mean() < (7 if format in ("JPEG", "AVIF") else 1e-9)
    exif = _loaded(photo.exif)
    assert exif.get(_ORIENTATION, 1) == 1
    assert exif[0x010F] == "maker" and exif.get_ifd(0x8825)[1] == "N"
    again = read_image(write_image(tmp_path / "again.png", photo))
    assert np.array_equal(again.pixels, photo.pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_16_bit_colour_is_turned_as_well(orientation: int, pattern: Pattern, tmp_path: Path) -> None:
    pixels = pattern(12, 20, 3, np.uint16)
    photo = replace(Photo.from_array(pixels), exif=_tags(orientation))  # kept as it is: nothing reads it here
    turned = read_image(write_image(tmp_path / "turned.png", photo))
    stored = Image.fromarray((pixels >> 8).astype(np.uint8))
    stored.getexif()[_ORIENTATION] = orientation
    assert np.array_equal(turned.pixels >> 8, np.asarray(ImageOps.exif_transpose(stored)))
    assert turned.bit_depth == 16


def test_every_other_byte_of_the_block_stays(pattern: Pattern, encode: Encode) -> None:
    block = _tags(6)
    photo = read_image(encode(Image.fromarray(pattern(8, 8)), "JPEG", exif=block))
    assert photo.exif is not None and len(photo.exif) == len(block)
    assert sum(a != b for a, b in zip(photo.exif, block, strict=True)) == 1
    exif = _loaded(photo.exif)
    assert exif.get_ifd(0x8769)[_MAKER_NOTE] == b"note\0\1\2\3 of the maker"
    assert exif.get_ifd(0x8825)[2] == (52.0, 31.0, 12.5)


def test_the_thumbnail_of_the_old_picture_is_unlinked(pattern: Pattern, encode: Encode) -> None:
    entry = struct.pack(">HHLHH", _ORIENTATION, 3, 1, 3, 0)
    second = struct.pack(">H", 1) + struct.pack(">HHLL", 0x0201, 4, 1, 99) + bytes(4)
    block = b"Exif\0\0MM\0*" + struct.pack(">LH", 8, 1) + entry + struct.pack(">L", 26) + second
    photo = read_image(encode(Image.fromarray(pattern(8, 8)), "JPEG", exif=block))
    assert photo.exif is not None and photo.exif[6 + 22 : 6 + 26] == bytes(4)


@pytest.mark.parametrize("block", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense" * 9])
def test_damaged_exif_does_not_stop_the_picture(block: bytes, pattern: Pattern, encode: Encode) -> None:
    photo = read_image(encode(Image.fromarray(pattern(8, 8)), "JPEG", exif=block))
    assert photo.exif is None and any("EXIF" in note for note in photo.notes)


def test_an_orientation_in_xmp_alone_is_applied_and_reset(pattern: Pattern, encode: Encode) -> None:
    from PIL import PngImagePlugin

    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta tiff:Orientation="6" dc:title="x"/>')
    photo = read_image(encode(Image.fromarray(pattern(8, 12)), "PNG", pnginfo=text))
    assert (photo.height, photo.width) == (12, 8)
    assert photo.xmp == b'<x:xmpmeta tiff:Orientation="1" dc:title="x"/>'


def test_an_orientation_that_does_not_exist_is_ignored(pattern: Pattern, encode: Encode) -> None:
    photo = read_image(encode(Image.fromarray(pattern(8, 12)), "JPEG", exif=_tags(9)))
    assert (photo.height, photo.width) == (8, 12)
