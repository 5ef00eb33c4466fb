"""Writing pictures: whole or not at all, in the format of the name, with what belonged to them."""

import logging
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image

from facerestore.core.errors import ConfigError, ImageError, OutputError, UnsupportedImage
from facerestore.imaging import native
from facerestore.imaging.photo import MODES, Photo
from facerestore.imaging.png import write_png
from facerestore.imaging.read import read_image
from facerestore.imaging.tiff import write_tiff
from facerestore.imaging.whole import whole_file

_log = logging.getLogger(__name__)

_QUALITY = 95
_MAX_SEGMENT_BYTES = 65_000  # what a JPEG holds of EXIF, XMP or comment in one segment


@dataclass(frozen=True, slots=True, kw_only=True)
class _Encoder:
    """What a format can hold.

    Attributes:
        endings: of file names, the first the usual one.
        modes: Photo modes that it holds.
        metadata: names of the metadata that it holds, as Pillow's save options spell them.
        options: save options where the input gives none.
        lossy: whether `quality` means something.
        max_side_px: largest width or height.
        modes16: those of them that it holds with 16 bits a channel; none if it has 8 alone.
        write: writes it; Pillow does where this is None.
    """

    endings: tuple[str, ...]
    modes: tuple[str, ...]
    metadata: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    lossy: bool = False
    max_side_px: int = 2**31 - 1
    modes16: tuple[str, ...] = ()
    write: Callable[..., None] | None = None


_ALL = ("icc_profile", "exif", "xmp", "dpi")
_ENCODERS: dict[str, _Encoder] = {
    "JPEG": _Encoder(
        endings=(".jpg", ".jpeg", ".jpe", ".jfif"),
        modes=("L", "RGB", "CMYK"),
        metadata=(*_ALL, "comment"),
        options={"subsampling": 0},
        lossy=True,
        max_side_px=65_500,
    ),
    "PNG": _Encoder(
        endings=(".png",),
        modes=("L", "LA", "RGB", "RGBA"),
        metadata=_ALL,
        modes16=("L", "LA", "RGB", "RGBA"),
        write=write_png,
    ),
    "WEBP": _Encoder(
        endings=(".webp",),
        modes=("RGB", "RGBA"),
        metadata=("icc_profile", "exif", "xmp"),
        options={"exact": True},  # keeps the colours below full transparency
        lossy=True,
        max_side_px=16_383,
    ),
    "TIFF": _Encoder(
        endings=(".tif", ".tiff"),
        modes=tuple(MODES),
        metadata=_ALL,
        modes16=("L", "RGB", "RGBA", "CMYK"),  # nobody reads grey with alpha
        write=write_tiff,
    ),
    "BMP": _Encoder(endings=(".bmp",), modes=("L", "RGB"), metadata=("dpi",)),
    "AVIF": _Encoder(
        endings=(".avif",),
        modes=("RGB", "RGBA"),
        metadata=("icc_profile", "exif", "xmp"),
        options={"subsampling": "4:4:4"},
        lossy=True,
        max_side_px=65_536,
    ),
}
_ONLY_READ = frozenset({".heic", ".heif", ".jxl"})  # endings of pictures that Pillow does not know
_FORMAT_OF_ENDING = {ending: name for name, encoder in _ENCODERS.items() for ending in encoder.endings}
_PRIVATE = {"exif": None, "xmp": None, "comment": None}


def write_image(
    path: str | os.PathLike[str],
    image: Photo | Image.Image | np.ndarray[Any, Any] | torch.Tensor,
    *,
    like: Photo | None = None,
    format: str = "same",
    strip_metadata: bool = False,
    quality: int | None = None,
) -> Path:
    """Write a picture; the file appears whole or not at all, and the same picture gives the same bytes.

    What a format cannot hold is converted: alpha is laid on white, CMYK becomes sRGB, 16 bits are rounded
    to 8.
    A JPEG that came from a JPEG keeps its quantisation tables, subsampling and progressive order.

    Args:
        path: the file; its folder must exist, and an older file is replaced.
        image: a `Photo`, a Pillow image, an array as `Photo.from_array` takes it (in the colour space of
            `like`), or an sRGB tensor (1,3,H,W) or (3,H,W) in [0,1], which is rounded to 8 bits, or to 16 if
            `like` has 16.
        like: gives the metadata, the colour profile and the encoding to a picture that is no `Photo`.
        format: `same` takes the ending of the name, and without one the format of the photo; or the ending
            of a format (`png`, `jpg`, `webp`, `tif`, `bmp`, `avif`).
        strip_metadata: leave out EXIF, XMP and comments. The colour profile stays: without it the colours
            would change.
        quality: 1 to 100 of JPEG, WebP and AVIF; None keeps the input's encoding, or takes 95.

    Returns:
        The path.

    Raises:
        OutputError: if the file cannot be written.
        UnsupportedImage: if the format is unknown, or cannot hold this picture.
        ConfigError: if `format` contradicts the ending of the name, or `quality` is out of range.
        ShapeError, RangeError: if `image` is no picture.
    """
    target = Path(path)
    if quality is not None and not 1 <= quality <= 100:
        raise ConfigError(f"quality is 1 to 100, not {quality}")
    photo = _as_photo(image, like)
    name = _format_of(target, photo, format)
    encoder = _ENCODERS[name]
    if max(photo.width, photo.height) > encoder.max_side_px:
        raise UnsupportedImage(
            f"{target}: {photo.width} x {photo.height} px, but {name} holds at most {encoder.max_side_px} px "
            "a side; write PNG or TIFF"
        )
    if strip_metadata:
        photo = replace(photo, **_PRIVATE)
    photo = _fitted(photo, name, target)
    try:
        with whole_file(target) as stream:
            _encode(stream, photo, name, quality)
    except (ImageError, OutputError):
        raise
    except (OSError, ValueError, struct.error) as error:
        raise OutputError(f"{target}: cannot be encoded as {name} ({error})") from error
    return target


def _as_photo(image: Any, like: Photo | None) -> Photo:
    if isinstance(image, Photo):
        return image
    if isinstance(image, torch.Tensor):
        depth = 16 if like is not None and like.bit_depth == 16 else 8
        photo = Photo.from_tensor(image, bit_depth=depth)
        same_space = like is not None and not native.needs_profile(like.icc_profile, MODES[like.mode][0])
    elif isinstance(image, np.ndarray | Image.Image):
        photo = read_image(image, max_pixels=2**62)
        same_space = True
    else:
        raise UnsupportedImage(
            f"expected a Photo, a Pillow image, an array or a tensor, got {type(image).__name__}"
        )
    if like is None:
        return photo
    same_space = same_space and MODES[like.mode][0] == MODES[photo.mode][0]
    return replace(
        photo,
        icc_profile=photo.icc_profile or (like.icc_profile if same_space else None),
        **{key: getattr(like, key) for key in ("exif", "xmp", "comment", "dpi", "format", "encoding")},
    )


def _format_of(target: Path, photo: Photo, format: str) -> str:
    """The name of the format to write, as Pillow spells it."""
    ending = target.suffix.lower()
    known = ", ".join(encoder.endings[0][1:] for encoder in _ENCODERS.values())
    by_name = _FORMAT_OF_ENDING.get(ending)
    if format != "same":
        asked = _FORMAT_OF_ENDING.get(f".{format.lower()}")
        if asked is None:
            raise UnsupportedImage(f"{target}: {format!r} is no format that is written; use same, {known}")
        if by_name not in (None, asked):
            raise ConfigError(f"{target}: the name says {by_name}, but format={format!r} was asked for")
        name = asked
    elif by_name is not None:
        name = by_name
    elif photo.format in _ENCODERS and ending not in _ONLY_READ | Image.registered_extensions().keys():
        name = photo.format
    else:
        raise UnsupportedImage(f"{target}: no format that is written; end the name in one of {known}")
    Image.init()
    if name not in Image.SAVE:
        raise UnsupportedImage(
            f"{target}: this Pillow was built without {name}; pip install --upgrade pillow"
        )
    return name


def _fitted(photo: Photo, name: str, target: Path) -> Photo:
    """The photo as the format can hold it, each loss logged."""
    encoder = _ENCODERS[name]
    if photo.bit_depth == 16 and not encoder.modes16:
        _log.info("%s: %s holds 8 bits a channel; the 16 are rounded", target, name)
        photo = photo.replace_pixels(native.reduce_to_8bit(photo.pixels))
    if photo.mode in ("LA", "RGBA") and not {"LA", "RGBA"} & set(encoder.modes):
        _log.warning("%s: %s holds no alpha; the picture is laid on white", target, name)
        photo = _on_white(photo)
    colour, count, _ = MODES[photo.mode]
    profile_lost = "icc_profile" not in encoder.metadata and native.needs_profile(photo.icc_profile, colour)
    modes = encoder.modes16 if photo.bit_depth == 16 else encoder.modes
    if photo.mode in modes and not profile_lost:
        return photo
    if colour == "CMYK" or profile_lost:
        _log.info("%s: colours converted to sRGB for %s", target, name)
    srgb = native.to_srgb_pixels(photo.pixels[..., :count], colour, photo.icc_profile)
    alpha = photo.pixels[..., count:]
    pixels = np.concatenate([srgb, alpha], axis=2) if alpha.shape[2] else srgb
    return replace(photo, pixels=pixels, mode="RGBA" if alpha.shape[2] else "RGB", icc_profile=None)


def _on_white(photo: Photo) -> Photo:
    colour, count, _ = MODES[photo.mode]
    top = np.iinfo(photo.pixels.dtype).max
    flat = np.empty((photo.height, photo.width, count), photo.pixels.dtype)
    for y in range(photo.height):
        row = photo.pixels[y].astype(np.uint64)
        colours, alpha = row[:, :count], row[:, count:]
        flat[y] = (colours * alpha + top * (top - alpha) + top // 2) // top
    return replace(photo, pixels=flat, mode=colour)


def _encode(stream: IO[bytes], photo: Photo, name: str, quality: int | None) -> None:
    encoder = _ENCODERS[name]
    metadata = {key: getattr(photo, key) for key in encoder.metadata if getattr(photo, key) is not None}
    options: dict[str, Any] = dict(encoder.options)
    if encoder.lossy:
        options |= {"quality": quality or _QUALITY}
    if photo.format == name and quality is None:
        options |= photo.encoding
        if options.get("qtables") or options.get("lossless"):
            del options["quality"]  # Pillow would scale the tables by it, or take it for an effort
    if encoder.write is not None:
        encoder.write(stream, photo.pixels, photo.mode, **options, **metadata)
        return
    if name == "JPEG":
        _leave_out_oversized(metadata, _MAX_SEGMENT_BYTES)
    native.to_pil(photo.pixels, photo.mode).save(stream, name, **options, **metadata)


def _leave_out_oversized(metadata: dict[str, Any], limit: int) -> None:
    for key in ("exif", "xmp", "comment"):
        if len(metadata.get(key, b"")) > limit:
            _log.warning("%s of %d bytes left out: a JPEG holds %d", key, len(metadata.pop(key)), limit)
