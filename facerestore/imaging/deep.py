"""Reading 16-bit colour with Pillow, which has no such images and keeps the high byte of every channel.

The file is decoded twice: once as it is, and once with the byte order of the pixels said to be the other
one, which makes Pillow keep the low bytes. Filters, predictors and compression lie below that.
"""

import re
import sys

import numpy as np
from PIL import ImageFile, TiffImagePlugin

from facerestore.core.errors import UnsupportedImage
from facerestore.imaging.native import Pixels

_RAWMODE = re.compile("(LA|RGB|RGBX|RGBA|RGBa|CMYK);16([BLN])")
_OTHER = {"B": "L", "L": "B"}
_NATIVE = "L" if sys.byteorder == "little" else "B"
_BITS_PER_SAMPLE, _PLANAR = 258, 284


def is_deep_colour(image: ImageFile.ImageFile, name: str) -> bool:
    """Whether a PNG or TIFF that was opened but not loaded has 16 bits where Pillow would give 8.

    Raises:
        UnsupportedImage: if it has, and they lie plane by plane.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_PLANAR) == 2:
        if max(image.tag_v2.get(_BITS_PER_SAMPLE, (8,))) > 8 and len(image.getbands()) > 1:
            raise UnsupportedImage(f"{name}: 16-bit TIFF in separate planes; save it interleaved, or as PNG")
        return False
    return bool(image.tile) and _RAWMODE.fullmatch(_rawmode(image)) is not None


def read_deep_colour(first: ImageFile.ImageFile, second: ImageFile.ImageFile) -> tuple[Pixels, str]:
    """Decode one file, opened twice, at full depth.

    Args:
        first: of which `is_deep_colour` is true; it is loaded.
        second: the same file again.

    Returns:
        (H,W,C) uint16, alpha not multiplied into the colours, and the mode.
    """
    found = _RAWMODE.fullmatch(_rawmode(first))
    if found is None:
        raise ValueError(f"{_rawmode(first)} has no 16 bits")
    channels, order = found[1], found[2].replace("N", _NATIVE)
    if channels == "LA":  # four bytes, which an RGBA image takes all
        _set_rawmode(first, "RGBA")
        return np.asarray(first).copy().view(">u2").astype(np.uint16), "LA"
    stored = "RGBA" if channels == "RGBa" else channels
    _set_rawmode(first, f"{stored};16{order}")
    _set_rawmode(second, f"{stored};16{_OTHER[order]}")
    pixels = np.asarray(first).astype(np.uint16)
    pixels <<= 8
    pixels |= np.asarray(second)
    return _divided(pixels) if channels == "RGBa" else pixels, first.mode


def _rawmode(image: ImageFile.ImageFile) -> str:
    args = image.tile[0].args
    return str(args[0] if isinstance(args, tuple) else args)


def _set_rawmode(image: ImageFile.ImageFile, rawmode: str) -> None:
    image.tile = [
        tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)
        for tile in image.tile
    ]


def _divided(pixels: Pixels) -> Pixels:
    """Take the alpha out of colours that it was multiplied into."""
    for row in pixels:
        alpha = np.maximum(row[:, 3:].astype(np.float64), 1)
        row[:, :3] = np.rint(row[:, :3] / alpha * 65535).clip(0, 65535)
    return pixels
