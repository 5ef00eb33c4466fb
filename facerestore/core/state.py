"""What travels through a chain of stages."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch

from facerestore.core.errors import RangeError, ShapeError

_EMPTY: Mapping[str, Any] = MappingProxyType({})


def check_images(images: torch.Tensor, name: str = "images") -> torch.Tensor:
    """Return `images` unchanged if it is (B,3,H,W), of floats, finite and in [0,1].

    Raises:
        ShapeError: if it is not (B,3,H,W), or has no pixel.
        RangeError: if a value is NaN, infinite, or more than 1e-4 outside [0,1].
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ShapeError(f"{name} (B,3,H,W)", images.shape, "Repeat grey three times; split alpha off.")
    if 0 in images.shape[2:]:
        raise ShapeError(f"{name} (B,3,H,W) with at least one pixel", images.shape)
    if not images.is_floating_point():
        raise RangeError(
            f"{name}: expected float values in [0,1], got {images.dtype}; divide by 255 first", 0, 255
        )
    if images.numel():
        low, high = (float(v) for v in torch.aminmax(images.detach()))
        if not (low >= -1e-4 and high <= 1 + 1e-4):  # written so that NaN fails
            raise RangeError(
                f"{name}: expected finite values in [0,1], got {low:.4g} to {high:.4g}; {_remedy(low, high)}",
                low,
                high,
            )
    return images


def _remedy(low: float, high: float) -> str:
    if not math.isfinite(high - low):
        return "whatever made the picture went wrong"
    if high > 2:
        return "divide by 255"
    return "map -1 to 1 by (x + 1) / 2" if low < -0.5 else "clamp what overshoots"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorationState:
    """A batch of faces on its way through the stages; every change makes a new state.

    Attributes:
        lq: what came in, (B,3,H,W) float32 in [0,1]; never rewritten.
        image: best estimate so far, same form; starts equal to `lq`.
        seeds: one per image, so that the batch size never changes a result.
        kept: named snapshots of `image`, for colour references, fusion and sheets.
        facts: per-image numbers that a stage wants reported, such as the size at which it worked.
    """

    lq: torch.Tensor
    image: torch.Tensor
    seeds: tuple[int, ...]
    kept: Mapping[str, torch.Tensor] = field(default_factory=lambda: _EMPTY)
    facts: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: _EMPTY)

    @classmethod
    def start(cls, lq: torch.Tensor, seed: int | Sequence[int] = 0) -> "RestorationState":
        """The state before the first stage, in float32; `seed` is one for all images, or one for each."""
        lq = check_images(lq, "lq").float()
        seeds = (seed,) * len(lq) if isinstance(seed, int) else tuple(seed)
        if len(seeds) != len(lq):
            raise ShapeError(f"{len(lq)} seeds, one for each image", (len(seeds),))
        return cls(lq=lq, image=lq, seeds=seeds)

    def with_image(self, image: torch.Tensor) -> "RestorationState":
        """A copy with another estimate."""
        return replace(self, image=image)

    def keep(self, name: str) -> "RestorationState":
        """A copy that remembers the present image as `kept[name]`."""
        return replace(self, kept=MappingProxyType({**self.kept, name: self.image}))

    def with_fact(self, name: str, values: Sequence[float]) -> "RestorationState":
        """A copy with one number per image under `facts[name]`."""
        if len(values) != len(self.lq):
            raise ShapeError(f"{len(self.lq)} values of fact {name!r}", (len(values),))
        return replace(self, facts=MappingProxyType({**self.facts, name: tuple(values)}))
