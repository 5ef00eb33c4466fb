"""What a restoration returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from facerestore.core.errors import FaceRestoreError
from facerestore.imaging.photo import Photo

FaceStatus = Literal["restored", "too small", "not chosen", "already sharp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceResult:
    """One face of a picture.

    Attributes:
        index: number in the picture, largest face first.
        box: (x0, y0, x1, y1) in pixels of the picture.
        landmarks: (5,2) float32, eyes, nose, mouth corners, in pixels of the picture (pixel centres at integers).
        confidence: of the detector, in [0,1].
        status: what was done with it.
        size_px: side of the square in the picture that the 512 px crop covers.
        roll_deg: how far the face is turned, in (-180, 180], 0 upright.
        before: the aligned crop as it came, (1,3,512,512) float32 in [0,1].
        after: the aligned crop as it went back in, same form; None where the face was not restored.
        stages: the crop after each stage, by the stage's name.
        facts: numbers that stages reported, such as `entry_px`.
        identity_distance: L2 distance of the recognition descriptors before and after; the same person below 0.6.
        identity_similarity: the same in [0,1], 1 at equality, 0.5 at that threshold.
    """

    index: int
    box: tuple[float, float, float, float]
    landmarks: np.ndarray[Any, Any]
    confidence: float
    status: FaceStatus
    size_px: float
    roll_deg: float
    before: torch.Tensor
    after: torch.Tensor | None = None
    stages: Mapping[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    facts: Mapping[str, float] = field(default_factory=dict[str, float])
    identity_distance: float | None = None
    identity_similarity: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """A restored picture.

    Attributes:
        source: the path as given, or `<image>` for a picture in memory.
        photo: the restored picture with the metadata of the input; what `write_image` takes whole.
        image: the restored picture as the kind of thing that came in.
        faces: one entry a face found, largest first.
        notes: what a person should know: "first of 3 frames", "no face found".
        provenance: recipe, configuration fingerprint, weight hashes, seed, options, versions.
        seconds: wall time spent on this picture, by part.
        error: always None; `Failure` has one.
    """

    source: str
    photo: Photo
    image: Any
    faces: tuple[FaceResult, ...]
    notes: tuple[str, ...]
    provenance: Mapping[str, Any]
    seconds: Mapping[str, float]
    error: None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A picture that could not be restored; the others are not affected.

    Attributes:
        source: the path as given, or `<image>`.
        error: why.
    """

    source: str
    error: FaceRestoreError


def as_came(given: Any, photo: Photo) -> Any:
    """The photo as the kind of thing that was given: PIL image (also for a path), `Photo`, array or tensor.

    A path to a 16-bit colour picture gives a uint16 array (H,W,C), since Pillow has no such picture. In a tensor,
    values that the restoration did not touch are the ones that were given, to the last bit.
    """
    if isinstance(given, Photo):
        return photo
    if isinstance(given, torch.Tensor):
        return _as_tensor(given, photo)
    if isinstance(given, np.ndarray):
        pixels = photo.pixels
        return pixels[..., 0] if given.ndim == 2 else pixels
    if photo.bit_depth == 16 and photo.mode != "L":
        return photo.pixels
    return photo.to_pil()


def _as_tensor(given: torch.Tensor, photo: Photo) -> torch.Tensor:
    image = photo.srgb().to(given.device)
    original = given if given.ndim == 4 else given[None]
    if original.shape == image.shape:
        step = 1.01 / np.iinfo(photo.pixels.dtype).max  # the photo holds the tensor rounded to its depth
        image = torch.where((image - original).abs() <= step, original.float(), image)
    return image if given.ndim == 4 else image[0]
