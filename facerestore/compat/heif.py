"""The door to pillow-heif, which reads HEIC; used without registering it with Pillow."""

from typing import IO

from PIL import ImageFile

from facerestore.core.errors import UnsupportedImage

_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def is_heif(head: bytes) -> bool:
    """Whether a file that starts with `head` (16 bytes at least) is HEIF of the kind that cameras write."""
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS


def open_heif(stream: IO[bytes], name: str) -> ImageFile.ImageFile:
    """Open a HEIC file; its pixels are decoded when they are asked for, in 8 bits, and stand upright then.

    Args:
        stream: the file.
        name: of the file, for messages.

    Raises:
        UnsupportedImage: if pillow-heif is not installed.
    """
    try:
        from pillow_heif import HeifImageFile  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UnsupportedImage(
            f"{name}: HEIC needs the package pillow-heif: pip install pillow-heif, "
            "or save the picture as JPEG or PNG"
        ) from error
    stream.seek(0)
    return HeifImageFile(stream)
