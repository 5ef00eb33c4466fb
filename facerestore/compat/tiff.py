"""The door to tifffile, which reads 16-bit colour; Pillow would reduce it to 8 bits without a word."""

from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from facerestore.core.errors import ImageUnreadable, UnsupportedImage

_ASSOCIATED_ALPHA = 1


def read_first_page(stream: IO[bytes], name: str) -> NDArray[Any]:
    """Read the first page of a TIFF at full depth.

    Args:
        stream: the file.
        name: of the file, for messages.

    Returns:
        (H,W,C), alpha not multiplied into the colours; not yet turned by the orientation tag.

    Raises:
        UnsupportedImage: if tifffile, or the codec that the file needs, is not installed.
        ImageUnreadable: if the file is damaged.
    """
    way_out = "or save the picture as 16-bit PNG or as 8-bit TIFF"
    try:
        import tifffile
    except ImportError as error:
        raise UnsupportedImage(
            f"{name}: a 16-bit colour TIFF needs the package tifffile: pip install tifffile, {way_out}"
        ) from error
    stream.seek(0)
    try:
        with tifffile.TiffFile(stream) as file:
            page = file.pages.first
            pixels = page.asarray()
            planes_first = page.axes.startswith("S")
            associated = _ASSOCIATED_ALPHA in tuple(page.extrasamples)
    except (ValueError, ImportError) as error:
        if "imagecodecs" not in str(error):
            raise ImageUnreadable(f"{name}: damaged TIFF ({error})") from error
        raise UnsupportedImage(
            f"{name}: this compression of a TIFF needs the package imagecodecs: pip install imagecodecs, "
            f"{way_out}"
        ) from error
    pixels = np.moveaxis(pixels, 0, -1) if planes_first else pixels
    if associated:
        alpha = np.maximum(pixels[..., -1:], 1).astype(np.float32)
        top = np.iinfo(pixels.dtype).max
        pixels[..., :-1] = np.rint(pixels[..., :-1] / alpha * top).clip(0, top)
    return pixels
