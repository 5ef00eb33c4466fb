"""Orientation: read it, apply it to pixels, and reset it in the metadata that is kept."""

import re
import struct
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from facerestore.imaging.native import Pixels

PREFIX = b"Exif\0\0"
_ORIENTATION = 0x0112
_BYTES_OF_TYPE = {3: "H", 4: "L"}  # SHORT, LONG
# EXIF orientation -> whether rows and columns change places, whether rows then turn round, whether columns do
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
# What a TIFF says about the picture, not about how its bytes lie in the file.
_DESCRIPTIVE = (
    "ImageDescription", "Make", "Model", "DateTime", "Artist", "Copyright", "Software", "HostComputer",
    "Rating", "RatingPercent", "XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject",
)  # fmt: skip
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>)\s*)[2-8]""")


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an opened image, 1 to 8; 1 where there is none that makes sense."""
    value = image.getexif().get(_ORIENTATION, 1)
    return value if value in _TURNS else 1


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn (H,W,C) pixels as the EXIF orientation says; contiguous, not copied where nothing turns."""
    swap, flip_rows, flip_columns = _TURNS[orientation]
    turned = pixels.swapaxes(0, 1) if swap else pixels
    return np.ascontiguousarray(turned[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])


def kept_exif(image: Image.Image) -> bytes | None:
    """The EXIF block of an opened image, for an upright copy of it; None where there is none.

    Its orientation is 1, and its thumbnail, which would show the old picture, is unlinked. Everything else
    keeps its bytes and its place, so that maker notes stay readable. A TIFF has no such block; one is made
    of its tags.

    Raises:
        struct.error: if the block is damaged.
    """
    block = image.info.get("exif")
    if isinstance(block, bytes) and block:
        return _reset(block)
    tags = image.getexif()
    made = Image.Exif()
    for tag in (getattr(ExifTags.Base, name).value for name in _DESCRIPTIVE):
        if tag in tags:
            made[tag] = tags[tag]
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        entries: dict[int, Any] = tags.get_ifd(directory)
        if entries:
            made[directory] = dict(entries)
    return made.tobytes() if len(made) else None


def _reset(block: bytes) -> bytes:
    tiff = bytearray(block.removeprefix(PREFIX))
    order = {b"II": "<", b"MM": ">"}.get(bytes(tiff[:2]))
    if order is None:
        raise struct.error("an EXIF block starts with II or MM")
    start = struct.unpack_from(f"{order}L", tiff, 4)[0]
    count = struct.unpack_from(f"{order}H", tiff, start)[0]
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
        if tag == _ORIENTATION and kind in _BYTES_OF_TYPE:
            struct.pack_into(f"{order}{_BYTES_OF_TYPE[kind]}", tiff, entry + 8, 1)
    if start + 2 + 12 * count + 4 <= len(tiff):
        struct.pack_into(f"{order}L", tiff, start + 2 + 12 * count, 0)
    return PREFIX + bytes(tiff)


def kept_xmp(image: Image.Image) -> bytes | None:
    """The XMP packet of an opened image, its orientation reset to 1; None where there is none."""
    packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    if isinstance(packet, str):
        packet = packet.encode()
    return _XMP_ORIENTATION.sub(rb"\g<1>1", packet) if isinstance(packet, bytes) and packet else None
