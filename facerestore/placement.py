"""Where a face lies in a photo, and how its restored crop goes back there."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from facerestore.faces.align import align, source_box, unwarp
from facerestore.faces.detect import Face
from facerestore.faces.paste import face_mask
from facerestore.faces.similarity import similarity_matrix
from facerestore.faces.templates import FFHQ_512
from facerestore.imaging.photo import Photo

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class FacePlace:
    """A face in a photo.

    Attributes:
        matrix: (2,3) float32, maps pixels of the photo to pixels of the crop, centres at integers.
        mask: (1,1,S,S) in [0,1]: how far the crop replaces the photo.
        crop_px: S, side of the crop.
        box: (x0, y0, x1, y1) of the face in the photo.
        landmarks: (5,2) in the photo.
        confidence: of the detector.
        roll_deg: of the face.
    """

    matrix: torch.Tensor
    mask: torch.Tensor
    crop_px: int
    box: tuple[float, float, float, float]
    landmarks: np.ndarray[Any, Any]
    confidence: float
    roll_deg: float

    @property
    def size_px(self) -> float:
        """Side of the square of the photo that the crop covers."""
        return self.crop_px / float(torch.linalg.det(self.matrix[:, :2].double()).abs().sqrt())

    @property
    def face_px(self) -> float:
        """The longer side of the box."""
        return max(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def margin_px(self) -> int:
        """How far the filters of the crop reach beyond it, in pixels of the photo."""
        return math.ceil(2 * max(1.0, self.size_px / self.crop_px)) + 3

    def matrix_within(self, box: Box, scale: float = 1.0) -> torch.Tensor:
        """The matrix for a region of the photo, after the photo was enlarged `scale` times.

        Args:
            box: region of the enlarged photo.
            scale: of the enlargement.
        """
        # a pixel centre x of the enlarged region lies at (x + x0 + 0.5) / scale - 0.5 of the photo
        offset = torch.tensor(
            [(box[0] + 0.5) / scale - 0.5, (box[1] + 0.5) / scale - 0.5], dtype=torch.float64
        )
        matrix = self.matrix.double()
        shifted = torch.cat([matrix[:, :2] / scale, (matrix[:, :2] @ offset + matrix[:, 2])[:, None]], 1)
        return shifted.float()


def place_face(face: Face, scale: float, crop_px: int) -> FacePlace:
    """The place of a face that was found in a photo reduced by `scale` (reduced size over full size)."""
    landmarks = ((face.landmarks + 0.5) / scale - 0.5).astype(np.float32)
    template = torch.as_tensor(FFHQ_512) * (crop_px / 512)
    matrix = similarity_matrix(torch.from_numpy(landmarks)[None], template)[0].float()
    box = tuple(float((v + 0.5) / scale - 0.5) for v in face.box)
    return FacePlace(
        matrix=matrix,
        mask=face_mask(crop_px),
        crop_px=crop_px,
        box=(box[0], box[1], box[2], box[3]),
        landmarks=landmarks,
        confidence=face.confidence,
        roll_deg=face.roll_deg,
    )


def place_aligned(height: int, width: int, crop_px: int) -> FacePlace:
    """The place of a face that fills the picture: its longer side becomes the crop's; centred."""
    scale = crop_px / max(height, width)
    shift_x, shift_y = ((crop_px - side * scale) / 2 + 0.5 * scale - 0.5 for side in (width, height))
    matrix = torch.tensor([[scale, 0.0, shift_x], [0.0, scale, shift_y]])
    landmarks = (np.asarray(FFHQ_512) * (crop_px / 512) - np.array([shift_x, shift_y])) / scale
    return FacePlace(
        matrix=matrix,
        mask=torch.ones(1, 1, crop_px, crop_px),
        crop_px=crop_px,
        box=(0.0, 0.0, float(width - 1), float(height - 1)),
        landmarks=landmarks.astype(np.float32),
        confidence=1.0,
        roll_deg=0.0,
    )


def paste(canvas: Photo, place: FacePlace, restored: torch.Tensor, scale: float = 1.0) -> None:
    """Write a restored crop (1,3,S,S) over its place in `canvas`, the photo enlarged `scale` times.

    Where the photo shows the face smaller than the crop, the crop replaces it. Where it shows it larger,
    only what the
    crop can carry is exchanged, and the photo's finer detail stays: a large face never gets blurrier than it
    was.
    """
    whole = place.matrix_within((0, 0, 0, 0), scale)
    box = source_box(whole, place.crop_px, canvas.height, canvas.width, math.ceil(place.margin_px * scale))
    matrix = place.matrix_within(box, scale).to(restored.device)[None]
    mask = unwarp(place.mask.to(restored.device), matrix, box_size(box)).clamp(0, 1)
    if place.size_px * scale > place.crop_px:
        region = canvas.srgb(box).to(restored.device)
        change = restored - align(region, matrix, place.crop_px)
        srgb = region + unwarp(change, matrix, box_size(box))
    else:
        srgb = unwarp(restored, matrix, box_size(box))
    canvas.blend(box, srgb.clamp(0, 1).cpu(), mask.cpu())


def box_size(box: Box) -> Box:
    """The same region in its own coordinates: it starts at (0, 0)."""
    return (0, 0, box[2] - box[0], box[3] - box[1])


def enlarged(photo: Photo, scale: float) -> Photo:
    """A copy of the photo, resized by Lanczos in its own mode and depth; metadata is kept."""
    width, height = round(photo.width * scale), round(photo.height * scale)
    pixels = np.empty((height, width, photo.pixels.shape[2]), photo.pixels.dtype)
    for channel in range(pixels.shape[2]):
        plane = np.ascontiguousarray(photo.pixels[..., channel])
        if plane.dtype != np.uint8:
            plane = plane.astype(np.float32)  # Pillow resizes 8-bit and float planes
        large = np.asarray(Image.fromarray(plane).resize((width, height), Image.Resampling.LANCZOS))
        if large.dtype != np.uint8:
            large = large.round().clip(0, np.iinfo(pixels.dtype).max)
        pixels[..., channel] = large
    return photo.replace_pixels(pixels)
