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
