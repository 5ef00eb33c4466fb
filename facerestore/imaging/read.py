"""Reading pictures: whatever comes, a `Photo` or a typed error that names the file."""

import io
import math
import os
import stat
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image, ImageFile, JpegImagePlugin, TiffImagePlugin

from facerestore.compat.heif import is_heif, open_heif
from facerestore.core.errors import ImageError, ImageTooLarge, ImageUnreadable, UnsupportedImage
from facerestore.imaging import exif, native
from facerestore.imaging.deep import is_deep_colour, read_deep_colour
from facerestore.imaging.native import Pixels
from facerestore.imaging.photo import MODES, Photo

DEFAULT_MAX_PIXELS = 200_000_000
"""Largest picture that is decoded: 600 MB of 8-bit RGB, more than any camera's sensor."""

Source = str | os.PathLike[str] | bytes | Image.Image | np.ndarray[Any, Any] | torch.Tensor | Photo

# Formats in the order in which they are tried. None runs another program; each knows its files by the start.
_FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "TIFF",
    "AVIF",
    "GIF",
    "BMP",
    "JPEG2000",
    "PPM",
    "PSD",
    "QOI",
    "ICO",
    "PCX",
)
_WITH_FRAMES = frozenset({"GIF", "PNG", "WEBP", "MPO", "TIFF", "AVIF", "HEIF"})
_RAW_ENDINGS = frozenset({".dng", ".nef", ".cr2", ".arw", ".orf", ".rw2", ".pef", ".srw"})
# What decoders raise on damaged data; SyntaxError is how Pillow says that a header makes no sense.
_DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError, AttributeError,
    RuntimeError, struct.error, zlib.error,
)  # fmt: skip

# Pillow mode -> (Photo mode, what a person should know). "P" is decided by its transparency.
_CONVERSIONS: dict[str, tuple[str, str]] = {
    "1": ("L", "1-bit picture, read as 8-bit grey"),
    "La": ("LA", "alpha was multiplied into the grey, and is divided out"),
    "PA": ("RGBA", "palette expanded to RGBA"),
    "RGBX": ("RGB", "fourth channel without meaning left out"),
    "RGBa": ("RGBA", "alpha was multiplied into the colours, and is divided out"),
    "YCbCr": ("RGB", "YCbCr converted to RGB"),
    "HSV": ("RGB", "HSV converted to RGB"),
}
_WITH_ALPHA = {"L": "LA", "RGB": "RGBA"}


def read_image(source: Source, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Photo:
    """Read a picture, upright, in its own mode, depth and colour space.

    Of an animation or a file with several pictures the first is read, and a note says so. Pillow's own limit
    (`PIL.Image.MAX_IMAGE_PIXELS`) is neither asked nor changed.

    Args:
        source: a path, the bytes of a file, a Pillow image, a uint8 or uint16 array (H,W) or (H,W,C), a
            float tensor (1,3,H,W) or (3,H,W) in [0,1], or a `Photo`, which is returned as it is.
        max_pixels: the largest width times height that is decoded.

    Raises:
        ImageUnreadable: if the file is missing, empty, damaged or no picture.
        ImageTooLarge: if it has more pixels than `max_pixels`; found before it is decoded.
        UnsupportedImage: if the installed packages cannot read this kind of picture, or its values have no
            clear meaning.
        ShapeError: if an array or tensor is not shaped like one picture.
        RangeError: if a tensor is not finite, or outside [0,1].
    """
    if isinstance(source, Photo):
        return source
    if isinstance(source, torch.Tensor):
        return Photo.from_tensor(source)
    if isinstance(source, np.ndarray):
        return Photo.from_array(source)
    if isinstance(source, Image.Image):
        return _guarded(lambda: _from_pillow(source, None, "<image>", max_pixels), "<image>")
    if isinstance(source, bytes):
        return _from_stream(io.BytesIO(source), "<bytes>", max_pixels)
    if isinstance(source, str | os.PathLike):
        return _from_path(Path(source), max_pixels)
    kinds = "a path, bytes, a Pillow image, an array, a tensor or a Photo"
    raise UnsupportedImage(f"expected {kinds}, got {type(source).__name__}")


def _from_path(path: Path, max_pixels: int) -> Photo:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever
            raise ImageUnreadable(f"{path}: is a folder or a device, not a picture file")
        with path.open("rb") as stream:
            return replace(_from_stream(stream, str(path), max_pixels), path=path)
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageUnreadable(f"{path}: no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ImageUnreadable(f"{path}: cannot be opened ({error})") from error


def _from_stream(stream: IO[bytes], name: str, max_pixels: int) -> Photo:
    if not stream.read(1):
        raise ImageUnreadable(f"{name}: the file is empty")
    if Path(name).suffix.lower() in _RAW_ENDINGS:  # Pillow would take the thumbnail for the picture
        raise UnsupportedImage(f"{name}: camera raw data; develop it to 16-bit TIFF or PNG first")
    return _guarded(lambda: _from_pillow(_open(stream, name), stream, name, max_pixels), name)


def _guarded(read: Any, name: str) -> Photo:
    """Run `read`, and turn what a decoder raises into an error that names the file."""
    try:
        return read()
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageTooLarge(
            f"{name}: Pillow refuses it by its own limit; this program has set PIL.Image.MAX_IMAGE_PIXELS to "
            f"{Image.MAX_IMAGE_PIXELS} ({error})"
        ) from error
    except MemoryError as error:
        raise ImageTooLarge(f"{name}: there is not enough memory to decode it") from error
    except _DECODER_ERRORS as error:
        raise ImageUnreadable(f"{name}: damaged or truncated ({error})") from error


def _open(stream: IO[bytes], name: str) -> ImageFile.ImageFile:
    """Open a picture as `PIL.Image.open` does, but without its limit, which belongs to the whole process."""
    stream.seek(0)
    head = stream.read(64)
    if is_heif(head):
        return open_heif(stream, name)
    Image.init()
    for format in _FORMATS:
        if format not in Image.OPEN:
            continue
        factory, accept = Image.OPEN[format]
        verdict = accept(head[:16]) if accept else False
        if isinstance(verdict, str):  # known, but this Pillow was built without it
            raise UnsupportedImage(f"{name}: {verdict}. pip install --upgrade pillow")
        if not verdict:
            continue
        stream.seek(0)
        try:
            return factory(stream, "")
        except (SyntaxError, LookupError, TypeError, struct.error) as error:
            raise ImageUnreadable(f"{name}: damaged {format}, or one of an unknown kind ({error})") from error
    raise ImageUnreadable(f"{name}: is no picture in a format that can be read ({', '.join(_FORMATS)}, HEIC)")


def _from_pillow(image: Image.Image, stream: IO[bytes] | None, name: str, max_pixels: int) -> Photo:
    """A photo of an opened image; `stream` is its file, or None for an image that was handed over open."""
    width, height = image.size
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"{name}: {width} x {height} px is more than the limit of {max_pixels} pixels; "
            f"pass max_pixels={width * height} to read it, about {3 * width * height >> 20} MB"
        )
    if width < 1 or height < 1:
        raise ImageUnreadable(f"{name}: has no pixels ({width} x {height})")
    notes = _notes_on_frames(image) + _notes_on_depth(image, stream)
    encoding = _encoding(image, stream)
    pixels, mode, note = _decoded(image, stream, name)
    notes += note
    turn = exif.orientation(image)  # after loading: TIFF and HEIC are turned then, and PNG is read to its end
    icc_profile, note = _profile(image, mode)
    notes += note
    try:
        exif_block = exif.kept_exif(image)
    except (struct.error, *_DECODER_ERRORS):
        exif_block = None
        notes += ("damaged EXIF data left out",)
    comment = image.info.get("comment") if image.format in ("JPEG", "MPO") else None
    return Photo(
        pixels=exif.upright(pixels, turn),
        mode=mode,
        icc_profile=icc_profile,
        exif=exif_block,
        xmp=exif.kept_xmp(image),
        comment=comment if isinstance(comment, bytes) else None,
        dpi=_dpi(image),
        format="JPEG" if image.format == "MPO" else image.format,
        encoding=encoding,
        notes=notes,
    )


def _notes_on_frames(image: Image.Image) -> tuple[str, ...]:
    if image.format not in _WITH_FRAMES:
        return ()
    try:
        count = int(getattr(image, "n_frames", 1))
    except _DECODER_ERRORS:  # a later picture is damaged; the first may be fine
        return ("only the first picture of this file is read",)
    return (f"first of {count} pictures in this file; the others are not read",) if count > 1 else ()


def _notes_on_depth(image: Image.Image, stream: IO[bytes] | None) -> tuple[str, ...]:
    """What Pillow does not say: that 10 or 12 bits became 8."""
    bits = int(image.info.get("bit_depth") or 8)
    if image.format == "AVIF" and stream is not None:
        stream.seek(0)
        head = stream.read(4096)
        pixi = head.find(b"pixi")  # box: name, 4 bytes of version and flags, number of channels, bits of each
        bits = head[pixi + 9] if 0 <= pixi < len(head) - 9 else 8
    return (f"{bits} bits a channel, read as 8",) if bits > 8 else ()


def _encoding(image: Image.Image, stream: IO[bytes] | None) -> dict[str, Any]:
    """Pillow's save options that encode as the file did."""
    if isinstance(image, JpegImagePlugin.JpegImageFile) and image.quantization:
        tables = [list(image.quantization[key]) for key in sorted(image.quantization)]
        if image.mode == "CMYK":  # written as four equal channels: the table for colour differences fits none
            return {"qtables": tables[:1], "subsampling": 0}
        sampling = JpegImagePlugin.get_sampling(image)
        options: dict[str, Any] = {"qtables": tables, "subsampling": sampling if sampling >= 0 else 0}
        return options | ({"progressive": True} if "progressive" in image.info else {})
    if image.format == "TIFF":
        return {"compressed": image.info.get("compression") != "raw"}
    if image.format == "WEBP" and stream is not None:
        stream.seek(0)
        return {"lossless": True} if b"VP8L" in stream.read(4096) else {}
    return {}


def _decoded(image: Image.Image, stream: IO[bytes] | None, name: str) -> tuple[Pixels, str, tuple[str, ...]]:
    """Load the image; its pixels, Photo mode and notes."""
    if stream is not None and isinstance(image, ImageFile.ImageFile):
        _prepare(image)
        if is_deep_colour(image, name):
            again = _open(stream, name)
            _prepare(again)
            return *read_deep_colour(image, again), ()
    image.load()
    return _pixels(image, name)


def _prepare(image: ImageFile.ImageFile) -> None:
    """Give a TIFF its memory: then Pillow does not ask its own limit when it loads it."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        image.im = Image.new(image.mode, getattr(image, "_tile_size", image.size)).im


def _pixels(image: Image.Image, name: str) -> tuple[Pixels, str, tuple[str, ...]]:
    """Pixels, Photo mode and notes of a loaded image."""
    mode = image.mode
    if mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        pixels = np.asarray(image).astype(np.uint16)[..., None]
        if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(262) == 0:
            pixels = 65535 - pixels  # 0 means white here, which Pillow leaves to us
        return pixels, "L", ()
    if mode in ("I", "F"):
        return _wide_grey(np.asarray(image), name), "L", (f"{mode} values, read as 16-bit grey",)
    transparent = image.has_transparency_data
    if mode == "P":
        target = "RGBA" if transparent else "RGB"
        return native.from_pil(image.convert(target)), target, (f"palette expanded to {target}",)
    if mode in _CONVERSIONS:
        target, note = _CONVERSIONS[mode]
        return native.from_pil(image.convert(target)), target, (note,)
    if mode in _WITH_ALPHA and transparent:
        target = _WITH_ALPHA[mode]
        return native.from_pil(image.convert(target)), target, ("transparent colour turned into alpha",)
    if mode not in MODES:
        raise UnsupportedImage(f"{name}: mode {mode} is not supported; save the picture as RGB or grey")
    return native.from_pil(image), mode, ()


def _wide_grey(values: Pixels, name: str) -> Pixels:
    """32-bit integers as they are, if 16 bits hold them; floats if they lie in [0,1]."""
    low, high = float(values.min()), float(values.max())
    top = 1.0 if values.dtype.kind == "f" else 65535.0
    if not (low >= 0 and high <= top):  # written so that NaN fails
        raise UnsupportedImage(
            f"{name}: values from {low:g} to {high:g}, but black and white are known only for 0 to {top:g}; "
            "save the picture with 8 or 16 bits a channel"
        )
    return np.rint(values * (65535 / top)).astype(np.uint16)[..., None]


def _profile(image: Image.Image, mode: str) -> tuple[bytes | None, tuple[str, ...]]:
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile:
        return None, ()
    if native.profile_kind(profile, MODES[mode][0]) == "broken":
        meant = "plain CMYK" if mode == "CMYK" else "sRGB"
        return None, (f"its colour profile is broken or does not fit; left out, the colours read as {meant}",)
    return profile, ()


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    try:
        x, y = (float(value) for value in image.info["dpi"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if all(math.isfinite(value) and value > 0 for value in (x, y)) else None
