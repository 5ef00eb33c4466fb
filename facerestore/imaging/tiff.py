"""Writing TIFF: Pillow writes 16 bits only in grey, and no Exif directory into a compressed file."""

import struct
import zlib
from itertools import accumulate
from typing import IO

from PIL import ExifTags, Image, TiffImagePlugin

from facerestore.core.errors import UnsupportedImage
from facerestore.imaging.native import Pixels

_PHOTOMETRIC = {"L": 1, "LA": 1, "RGB": 2, "RGBA": 2, "CMYK": 5}
_MAX_BYTES = 4_000_000_000  # offsets have 32 bits
_STRIP_BYTES = 1 << 20
_COMPRESSION = 4  # of zlib: level 6 takes twice as long for one or two percent


def write_tiff(
    stream: IO[bytes],
    pixels: Pixels,
    mode: str,
    *,
    compressed: bool = True,
    icc_profile: bytes | None = None,
    exif: bytes | None = None,
    xmp: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> None:
    """Write uint8 or uint16 pixels as a little-endian TIFF in strips.

    Args:
        stream: where to, at its beginning.
        pixels: (H,W,C).
        mode: "L", "LA", "RGB", "RGBA" or "CMYK".
        compressed: Deflate with the horizontal predictor, lossless; plain strips if False.
        icc_profile: embedded in tag 34675.
        exif: block that starts with `Exif`; its tags are copied, Exif and GPS directories included.
        xmp: packet, embedded in tag 700.
        dpi: resolution.

    Raises:
        UnsupportedImage: if the picture has more bytes than a TIFF holds.

    Reference:
        TIFF 6.0 (Adobe, 1992), sections 2, 3, 8 and 14; Deflate: TIFF Technical Notes (Adobe, 2002).
    """
    height, width, channels = pixels.shape
    row_bytes = pixels[0].nbytes
    if height * row_bytes > _MAX_BYTES:
        raise UnsupportedImage(f"{width} x {height} px in {mode} are more than a TIFF holds; write PNG")
    rows = max(1, _STRIP_BYTES // row_bytes)
    strips = [pixels[y : y + rows] for y in range(0, height, rows)]
    packed = [_deflated(strip) for strip in strips] if compressed else []
    sizes = [len(strip) for strip in packed] or [strip.nbytes for strip in strips]
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    if exif:
        block = Image.Exif()
        block.load(exif)
        for tag in block:
            directory = tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
            tags[tag] = dict(block.get_ifd(tag)) if directory else block[tag]
    layout = {
        256: width,
        257: height,
        258: (pixels.dtype.itemsize * 8,) * channels,
        259: 8 if compressed else 1,
        262: _PHOTOMETRIC[mode],
        273: tuple(accumulate(sizes[:-1], initial=0)),  # after the directory; made absolute when it is packed
        274: 1,
        277: channels,
        278: rows,
        279: tuple(sizes),
        284: 1,
        317: 2 if compressed else 1,
    }
    if mode in ("LA", "RGBA"):
        layout[338] = 2  # alpha that is not multiplied in
    if dpi:
        layout |= {282: dpi[0], 283: dpi[1], 296: 2}
    for tag, value in layout.items():
        tags[tag] = value
    for tag, kind, data in ((34675, 7, icc_profile), (700, 1, xmp)):
        if data:
            tags.tagtype[tag] = kind
            tags[tag] = data
    stream.write(b"II*\0" + struct.pack("<L", 8))
    stream.write(tags.tobytes(8))
    for strip in packed or (_little_endian(strip) for strip in strips):
        stream.write(strip)


def _little_endian(strip: Pixels) -> bytes:
    return strip.astype(strip.dtype.newbyteorder("<")).tobytes()


def _deflated(strip: Pixels) -> bytes:
    differences = strip.copy()
    differences[:, 1:] -= strip[:, :-1]
    return zlib.compress(_little_endian(differences), _COMPRESSION)
