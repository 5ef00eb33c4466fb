"""A picture as its file has it: pixels in their own mode, depth and colour space, and their metadata."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from facerestore.core.errors import ShapeError, UnsupportedImage
from facerestore.core.state import check_images
from facerestore.imaging import native
from facerestore.imaging.native import Pixels

Box = tuple[int, int, int, int]

# Photo mode -> (mode of its colour channels, number of them, number of all channels)
MODES: dict[str, tuple[str, int, int]] = {
    "L": ("L", 1, 1),
    "LA": ("L", 1, 2),
    "RGB": ("RGB", 3, 3),
    "RGBA": ("RGB", 3, 4),
    "CMYK": ("CMYK", 4, 4),
}
_MODE_OF_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_GREY_SAMPLE_SIDE = 512


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Photo:
    """A picture and its metadata. Only `blend` writes into `pixels`; take a `copy` first.

    Attributes:
        pixels: (H,W,C) uint8 or uint16, upright, in the file's own mode and colour space.
        mode: "L", "LA", "RGB", "RGBA" or "CMYK" (0 is no ink).
        icc_profile: the usable profile that came with it, or None, which means sRGB.
        exif: EXIF block, starting with `Exif`, its orientation reset to 1, its thumbnail unlinked.
        xmp: XMP packet, its orientation reset to 1.
        comment: JPEG comment.
        dpi: pixels per inch, horizontally and vertically.
        format: of the file, as Pillow names it ("JPEG", "PNG"), or None for a picture from memory.
        encoding: save options that encode it as it was: JPEG `qtables`, `subsampling`, `progressive`;
            WebP `lossless`; TIFF `compressed`.
        notes: what reading changed or left out, for a person.
        path: of the file, or None.
    """

    pixels: Pixels
    mode: str
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    comment: bytes | None = None
    dpi: tuple[float, float] | None = None
    format: str | None = None
    encoding: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()
    path: Path | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UnsupportedImage(f"a Photo has mode {', '.join(MODES)}, not {self.mode!r}")
        if self.pixels.dtype not in (np.uint8, np.uint16):
            raise UnsupportedImage(f"a Photo has uint8 or uint16 pixels, not {self.pixels.dtype}")
        channels = MODES[self.mode][2]
        if self.pixels.ndim != 3 or self.pixels.shape[2] != channels or 0 in self.pixels.shape:
            raise ShapeError(f"pixels (H,W,{channels}) of mode {self.mode}", self.pixels.shape)

    @classmethod
    def from_array(cls, array: Pixels) -> Self:
        """A photo of a uint8 or uint16 array, not copied: (H,W) grey, (H,W,2) LA, (H,W,3) RGB, (H,W,4) RGBA.

        Raises:
            UnsupportedImage: if the array has another dtype.
            ShapeError: if it has another shape.
        """
        pixels = array[..., None] if array.ndim == 2 else array
        if pixels.ndim != 3 or pixels.shape[2] not in _MODE_OF_CHANNELS:
            raise ShapeError(
                "an array (H,W), (H,W,2), (H,W,3) or (H,W,4)", array.shape, "Channels come last."
            )
        if pixels.dtype not in (np.uint8, np.uint16):
            hint = "round it to uint8 in 0 to 255, or pass a float tensor (1,3,H,W) in [0,1]"
            raise UnsupportedImage(f"expected a uint8 or uint16 array, got {pixels.dtype}; {hint}")
        return cls(pixels=pixels, mode=_MODE_OF_CHANNELS[pixels.shape[2]])

    @classmethod
    def from_tensor(cls, image: torch.Tensor, *, bit_depth: int = 16) -> Self:
        """A photo of an sRGB tensor (1,3,H,W) or (3,H,W), float in [0,1], rounded to 8 or 16 bits.

        16 bits hold every multiple of 1/255 exactly.

        Raises:
            ShapeError: if the tensor has another shape.
            RangeError: if a value is not finite, or outside [0,1].
        """
        batch = check_images(image[None] if image.ndim == 3 else image, "image")
        if len(batch) != 1:
            raise ShapeError("one image (1,3,H,W)", batch.shape, "Pass the images of a batch one by one.")
        values = batch[0].detach().cpu().float().clamp(0, 1).mul(2**bit_depth - 1).round().permute(1, 2, 0)
        dtype = np.uint16 if bit_depth == 16 else np.uint8
        return cls(pixels=np.ascontiguousarray(values.numpy().astype(dtype)), mode="RGB")

    @property
    def height(self) -> int:
        """Rows."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Columns."""
        return self.pixels.shape[1]

    @property
    def bit_depth(self) -> int:
        """Bits a channel, 8 or 16."""
        return self.pixels.dtype.itemsize * 8

    @property
    def is_grey(self) -> bool:
        """Whether every sampled pixel is neutral in sRGB, up to one 8-bit code value; true of L and LA."""
        if MODES[self.mode][0] == "L":
            return True
        step = max(1, max(self.height, self.width) // _GREY_SAMPLE_SIDE)
        red, green, blue = np.moveaxis(self._srgb(self.pixels[::step, ::step]), 2, 0)
        # Not `max(axis=2)`, which takes ten times as long along three values.
        spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
        return float(spread.max()) <= 1.5 / 255

    def srgb(self, box: Box | None = None) -> torch.Tensor:
        """A region in sRGB; alpha is ignored, and only the region is touched.

        Args:
            box: (x0, y0, x1, y1) in pixels, the end excluded; the whole picture if None.

        Returns:
            (1,3,h,w) float32 in [0,1].

        Raises:
            ShapeError: if the box is empty or not inside the picture.
        """
        return _tensor(self._srgb(self._region(box)))

    def reduced_srgb(self, max_side_px: int) -> tuple[torch.Tensor, float]:
        """The whole picture in sRGB, reduced until no side is longer than `max_side_px`; never enlarged.

        Every pixel counts by its area. The reduction is done in 8 bits and in the picture's own colour space.

        Returns:
            The image (1,3,h,w) float32 in [0,1], and the scale, at most 1, the same along both axes:
            a point x of the photo (pixel centres at integers) lies at (x + 0.5) * scale - 0.5.
        """
        scale = min(1.0, max_side_px / max(self.height, self.width))
        if scale == 1.0:
            return self.srgb(), 1.0
        colour, count, _ = MODES[self.mode]
        pixels = self.pixels[..., :count]
        # The high byte serves here: what reads a reduced picture does not see 1/256 of a code value.
        image = native.to_pil((pixels >> 8).astype(np.uint8) if self.bit_depth == 16 else pixels, colour)
        size = max(1, int(self.width * scale + 1e-6)), max(1, int(self.height * scale + 1e-6))
        source = (0.0, 0.0, min(size[0] / scale, self.width), min(size[1] / scale, self.height))
        small = image.resize(size, Image.Resampling.BILINEAR, box=source, reducing_gap=2.0)
        return _tensor(native.to_srgb(native.from_pil(small), colour, self.icc_profile)), scale

    def blend(self, box: Box, srgb: torch.Tensor, mask: torch.Tensor) -> None:
        """Write new colours into a region of `pixels`, where the mask is above 0 and nowhere else.

        The change goes in by the share of the mask, in the photo's own mode, colour space and depth: colours
        that equal `srgb(box)` leave the pixels exactly as they are. Alpha is not touched. A grey photo
        changes in brightness only.

        Args:
            box: (x0, y0, x1, y1) of the region, in pixels.
            srgb: (1,3,h,w) in [0,1].
            mask: (1,1,h,w) in [0,1]; 1 takes `srgb` whole.

        Raises:
            ShapeError: if the box is not inside the picture, or a shape does not fit it.
            RangeError: if `srgb` is not finite, or outside [0,1].
        """
        region = self._region(box)
        size = region.shape[:2]
        check_images(srgb, "srgb")
        if srgb.shape != (1, 3, *size):
            raise ShapeError(f"srgb (1,3,{size[0]},{size[1]}), as the box {box} says", srgb.shape)
        if mask.shape != (1, 1, *size):
            raise ShapeError(f"a mask (1,1,{size[0]},{size[1]}), as the box {box} says", mask.shape)
        share = mask[0, 0].detach().cpu().float().clamp(0, 1).numpy()[..., None]
        values = srgb[0].detach().cpu().float().clamp(0, 1).permute(1, 2, 0).numpy()
        colour = MODES[self.mode][0]
        mixed = native.changed(region, colour, self.icc_profile, values, share, grey=self.is_grey)
        rounded = np.rint(mixed).clip(0, np.iinfo(region.dtype).max).astype(region.dtype)
        np.copyto(region, rounded, where=share > 0)

    def copy(self) -> Self:
        """A photo with pixels of its own, which `blend` may write."""
        return replace(self, pixels=self.pixels.copy())

    def replace_pixels(self, pixels: Pixels) -> Self:
        """The same photo, metadata and all, with other pixels of the same mode; any size, 8 or 16 bits."""
        return replace(self, pixels=pixels)

    def to_pil(self) -> Image.Image:
        """The picture as a Pillow image of the same mode, with profile, EXIF and dpi in its `info`.

        16 bits are rounded to 8, except of grey, which Pillow holds as "I;16".
        """
        if self.mode == "L" and self.bit_depth == 16:
            image = Image.fromarray(self.pixels[..., 0])
        else:
            image = native.to_pil(native.reduce_to_8bit(self.pixels), self.mode)
        kept = {"icc_profile": self.icc_profile, "exif": self.exif, "dpi": self.dpi}
        image.info.update({key: value for key, value in kept.items() if value is not None})
        return image

    def to_array(self) -> Pixels:
        """The pixels, (H,W) if grey without alpha, else (H,W,C); not copied."""
        return self.pixels[..., 0] if self.mode == "L" else self.pixels

    def _srgb(self, pixels: Pixels) -> Pixels:
        colour, count, _ = MODES[self.mode]
        return native.to_srgb(pixels[..., :count], colour, self.icc_profile)

    def _region(self, box: Box | None) -> Pixels:
        """A view of the colour channels inside the box."""
        x0, y0, x1, y1 = box or (0, 0, self.width, self.height)
        if not (0 <= x0 < x1 <= self.width and 0 <= y0 < y1 <= self.height):
            raise ShapeError(
                f"a box (x0, y0, x1, y1) inside {self.width} x {self.height} px", (x0, y0, x1, y1)
            )
        return self.pixels[y0:y1, x0:x1, : MODES[self.mode][1]]


def _tensor(srgb: Pixels) -> torch.Tensor:
    """(H,W,3) in [0,1] to (1,3,H,W)."""
    return torch.from_numpy(np.ascontiguousarray(srgb.transpose(2, 0, 1)))[None]
