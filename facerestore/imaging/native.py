"""Between the colour space that a file is in and sRGB, region by region, in numpy.

`mode` is the mode of the colour channels alone: "L", "RGB" or "CMYK". A profile is the bytes of an ICC file,
or None, which means sRGB (grey: its tone curve; CMYK: plain inks, R = (1 - C)(1 - K)).
"""

import functools
import io
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Pixels = NDArray[Any]
ProfileKind = Literal["srgb", "other", "broken"]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # Rec. 601, as Pillow makes grey
_SIGNATURES = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}
_DARKEST = 1e-3  # least light that counts, so that black can become bright
_ROUNDS = 5  # after which inks are within a code value, whatever came
_STRIP_ROWS = 256


def to_pil(pixels: Pixels, mode: str) -> Image.Image:
    """Copy (H,W,C) uint8 pixels into a Pillow image of `mode`, once."""
    height, width = pixels.shape[:2]
    return Image.frombytes(mode, (width, height), np.ascontiguousarray(pixels).data.cast("B"))


def from_pil(image: Image.Image) -> Pixels:
    """The pixels of an 8-bit Pillow image, (H,W,C) uint8."""
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def reduce_to_8bit(pixels: Pixels) -> Pixels:
    """Round uint16 pixels to uint8 (65535 becomes 255, 257 k becomes k); uint8 is returned as it is."""
    if pixels.dtype == np.uint8:
        return pixels
    reduced = np.empty(pixels.shape, np.uint8)
    for y in range(0, len(pixels), _STRIP_ROWS):  # in strips, so that the wide integers stay few
        strip = pixels[y : y + _STRIP_ROWS].astype(np.uint32)
        reduced[y : y + _STRIP_ROWS] = (strip + 128) // 257
    return reduced


@functools.lru_cache(maxsize=16)
def profile_kind(icc_profile: bytes, mode: str) -> ProfileKind:
    """Whether a profile is sRGB to within one 8-bit code value, another usable one, or of no use for `mode`.

    A profile is of no use if it cannot be parsed, is for other channels, or works in one direction only.
    """
    if icc_profile[16:20] != _SIGNATURES[mode]:
        return "broken"
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    axes = np.meshgrid(*[levels] * len(Image.new(mode, (1, 1)).getbands()), indexing="ij")
    probe = np.stack(axes, -1).reshape(1, -1, len(axes))
    try:
        srgb = _convert(probe, icc_profile, mode, inward=True)
        _convert(srgb, icc_profile, mode, inward=False)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return "broken"
    if mode == "CMYK":
        return "other"
    return "srgb" if np.abs(srgb.astype(int) - probe.astype(int)).max() <= 1 else "other"


def _convert(pixels: Pixels, icc_profile: bytes, mode: str, *, inward: bool) -> Pixels:
    """Convert (H,W,C) uint8 pixels from the profile to sRGB, or back."""
    own = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    (source, source_mode), (target, target_mode) = ((own, mode), (srgb, "RGB"))[:: 1 if inward else -1]
    transform = ImageCms.buildTransform(
        source,
        target,
        source_mode,
        target_mode,
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    converted = ImageCms.applyTransform(to_pil(pixels, source_mode), transform)
    if converted is None:
        raise ImageCms.PyCMSError("the transform returned no picture")
    return from_pil(converted)


def needs_profile(icc_profile: bytes | None, mode: str) -> bool:
    """Whether the colours are right only with the profile."""
    return icc_profile is not None and profile_kind(icc_profile, mode) == "other"


def to_srgb(pixels: Pixels, mode: str, icc_profile: bytes | None) -> Pixels:
    """Convert colour channels to sRGB.

    Args:
        pixels: (H,W,C) uint8 or uint16. With a profile other than sRGB, 16 bits are reduced to 8 on the way.
        mode: of the channels.
        icc_profile: of the pixels; relative colorimetric with black point compensation.

    Returns:
        (H,W,3) float32 in [0,1].
    """
    if icc_profile is not None and profile_kind(icc_profile, mode) == "other":
        return _convert(reduce_to_8bit(pixels), icc_profile, mode, inward=True).astype(np.float32) / 255
    values = pixels.astype(np.float32)
    values /= np.iinfo(
        pixels.dtype
    ).max  # in place: the memory of another picture costs as long as the division
    if mode == "L":
        return np.repeat(values, 3, axis=2)
    if mode == "CMYK":
        return (1 - values[..., :3]) * (1 - values[..., 3:])
    return values


def to_srgb_pixels(pixels: Pixels, mode: str, icc_profile: bytes | None) -> Pixels:
    """Convert a whole picture's colour channels to (H,W,3) sRGB of the same depth, in strips."""
    top = np.iinfo(pixels.dtype).max
    converted = np.empty((*pixels.shape[:2], 3), pixels.dtype)
    for y in range(0, len(pixels), _STRIP_ROWS):
        strip = to_srgb(pixels[y : y + _STRIP_ROWS], mode, icc_profile)
        converted[y : y + _STRIP_ROWS] = np.rint(strip * top)
    return converted


def changed(
    pixels: Pixels, mode: str, icc_profile: bytes | None, srgb: Pixels, share: Pixels, *, grey: bool
) -> Pixels:
    """What the pixels become when their colours go towards `srgb`, before rounding.

    The change is applied, not the colour: where `srgb` is what `to_srgb` gives, the pixels stay exactly as
    they are, the finest bits of 16 included, and a colour that sRGB cannot hold survives.

    Args:
        pixels: (H,W,C) uint8 or uint16, the colour channels.
        mode: of the channels.
        icc_profile: of the pixels.
        srgb: (H,W,3) float32 in [0,1].
        share: (H,W,1) float32 in [0,1], of the way that they go.
        grey: whether only the brightness may change.

    Returns:
        (H,W,C) float32 in code values, not yet rounded or clipped.
    """
    top = np.iinfo(pixels.dtype).max
    native = pixels.astype(np.float32)
    before = to_srgb(pixels, mode, icc_profile)
    change = srgb - before
    if grey:
        change = np.repeat((change @ _LUMA)[..., None], 3, axis=2)
    if mode == "CMYK":
        change = share * change
        inks = _inks(native / top, before, (before + change).clip(0, 1), icc_profile)
        return np.where(np.abs(change).max(axis=2, keepdims=True) > 1e-6, inks * top, native)
    if icc_profile is not None and needs_profile(icc_profile, mode):
        old, new = (
            _convert(np.rint(values.clip(0, 1) * 255).astype(np.uint8), icc_profile, mode, inward=False)
            for values in (before, before + change)
        )
        return native + share * (new.astype(np.float32) - old) * (top / 255)
    return native + share * top * (change if mode == "RGB" else (change @ _LUMA)[..., None])


def _inks(inks: Pixels, srgb: Pixels, wanted: Pixels, icc_profile: bytes | None) -> Pixels:
    """CMYK inks that look as wanted, near the inks that look as `srgb` now; all in [0,1].

    Each colour lets through as much more or less light as its channel needs, and black gives way only where a
    colour has none left to take away. For plain inks this is right at once, save near black; those of a
    profile behave much the same, so it is repeated. The profile's own separation would not do: it mixes
    another share of black, and next to the old mixture that shows.
    """
    for _ in range(_ROUNDS):
        light = np.maximum(1 - inks[..., :3], _DARKEST) * (wanted + _DARKEST) / (srgb + _DARKEST)
        black = np.maximum(1 - inks[..., 3:], _DARKEST)
        excess = light.max(axis=2, keepdims=True).clip(1, 1 / black)
        inks = 1 - np.concatenate([light / excess, black * excess], axis=2).clip(0, 1)
        srgb = to_srgb(np.rint(inks * 65535).astype(np.uint16), "CMYK", icc_profile)
    return inks
