"""What a restoration returns."""

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np
import torch

from facerestore.core.config import Config
from facerestore.core.errors import ConfigError, FaceRestoreError
from facerestore.imaging.photo import Photo

FaceStatus = Literal["restored", "too small", "not chosen", "already sharp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceResult:
    """One face of a picture.

    Attributes:
        index: number in the picture, largest face first.
        box: (x0, y0, x1, y1) in pixels of the picture.
        landmarks: (5,2) float32, eyes, nose, mouth corners, in pixels of the picture (pixel centres at
        integers).
        confidence: of the detector, in [0,1].
        status: what was done with it.
        size_px: side of the square in the picture that the 512 px crop covers.
        roll_deg: how far the face is turned, in (-180, 180], 0 upright.
        before: the aligned crop as it came, (1,3,512,512) float32 in [0,1].
        after: the aligned crop as it went back in, same form; None where the face was not restored.
        stages: the crop after each stage, by the stage's name.
        facts: numbers that stages reported, such as `entry_px`.
        identity_distance: L2 distance of the recognition descriptors before and after; the same person below
        0.6.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorationOptions(Config):
    """What a caller may choose for a picture; every field changes pixels."""

    strength: float = 1.0
    """0 gives the input back, 1 the restored face."""
    faces: Literal["all", "largest"] | int = "all"
    """Which faces are restored: a number means that many, largest first."""
    upscale: Literal[1, 2, 4] = 1
    """Size of the output photo in sizes of the input."""
    background: Literal["keep", "restore"] = "keep"
    """Whether the photo around the faces goes through the x4 network too."""
    aligned: bool = False
    """Whether the picture is one face, already aligned to the FFHQ template; nothing is searched then."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ConfigError(f"strength lies in [0,1], got {self.strength}")
        if self.upscale not in (1, 2, 4):
            raise ConfigError(f"upscale is 1, 2 or 4, got {self.upscale}")
        if self.background not in ("keep", "restore"):
            raise ConfigError(f"background is 'keep' or 'restore', got {self.background!r}")
        if isinstance(self.faces, str) and self.faces not in ("all", "largest"):
            raise ConfigError(f"faces is 'all', 'largest' or a number, got {self.faces!r}")
        if isinstance(self.faces, int) and self.faces < 0:
            raise ConfigError(f"faces must not be negative, got {self.faces}")

    def wanted(self) -> int | None:
        """How many faces, None for all."""
        return {"all": None, "largest": 1}[self.faces] if isinstance(self.faces, str) else self.faces


def provenance(
    *,
    recipe: str,
    config_fingerprint: str,
    weights: Mapping[str, str],
    device: str,
    dtype: str,
    seed: int,
    options: RestorationOptions,
) -> dict[str, Any]:
    """Everything that the pixels depend on, and the versions that made them; ready for JSON.

    `fingerprint` is equal exactly when recipe, settings, weights, device kind, dtype, seed and options are.
    """
    depends = {
        "recipe": recipe,
        "config_fingerprint": config_fingerprint,
        "weights": dict(weights),
        "device": device,
        "dtype": dtype,
        "seed": seed,
        "options": options.to_dict(),
    }
    text = json.dumps(depends, sort_keys=True)
    return {**depends, "versions": _versions(), "fingerprint": hashlib.sha256(text.encode()).hexdigest()[:16]}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("facerestore", "torch", "numpy", "pillow"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a source tree that was never installed
            found[package] = "unknown"
    return found


def as_came(given: Any, photo: Photo) -> Any:
    """The photo as the kind of thing that was given: PIL image (also for a path), `Photo`, array or tensor.

    A path to a 16-bit colour picture gives a uint16 array (H,W,C), since Pillow has no such picture. In a
    tensor,
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
