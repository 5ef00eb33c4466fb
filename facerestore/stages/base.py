"""What a stage is: a module that maps a `RestorationState` to a `RestorationState`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import nn

from facerestore.core.config import Config
from facerestore.core.errors import RangeError, ShapeError
from facerestore.core.precision import DtypeName
from facerestore.core.state import RestorationState

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContract:
    """Facts about a stage, checked before any weight is loaded.

    Attributes:
        reads: what must be there: "lq", "image", "kept.<name>".
        writes: what it leaves: "image", "kept.<name>".
        generative: whether it may invent detail; shown in reports.
        differentiable: whether gradients pass from its output to its input.
    """

    reads: frozenset[str] = frozenset({"image"})
    writes: frozenset[str] = frozenset({"image"})
    generative: bool = False
    differentiable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig(Config):
    """Settings of a stage; knows which weights it needs and how to build it."""

    def contract(self) -> StageContract:
        """What the stage reads and writes."""
        return StageContract()

    def weights(self) -> tuple[str, ...]:
        """Names of the weights it needs, as the manifest spells them."""
        return ()

    def build(self, store: "WeightStore") -> "Stage":
        """Build the stage; the only place that reads weight files."""
        raise TypeError(f"{type(self).__qualname__} must say how it is built")

    def tiny(self) -> Self:
        """The same settings at a size for tests, without weights."""
        return self


class Stage(nn.Module, ABC):
    """Abstract: one restorer or operation. Its `config` names it in reports."""

    config: StageConfig

    @property
    def name(self) -> str:
        """Short name for reports and snapshots, such as `realesrgan`."""
        return type(self).__module__.rsplit(".", 1)[-1]

    def place(self, device: torch.device, dtype: DtypeName, batch: int | None = None) -> Self:
        """Move every network to the device in its measured layout; stages without networks need nothing.

        Args:
            device: where it runs.
            dtype: `auto` takes the measured best.
            batch: images per forward call; None takes the measured best.
        """
        del device, dtype, batch
        return self

    @abstractmethod
    def forward(self, state: RestorationState) -> RestorationState:
        """Return the state after this stage."""


class ImageStage(Stage):
    """Abstract: a stage that only makes a new image; size, range and finiteness are checked here."""

    @abstractmethod
    def restore(self, image: torch.Tensor, state: RestorationState) -> torch.Tensor:
        """Map (B,3,H,W) float32 in [0,1] to the same form."""

    def forward(self, state: RestorationState) -> RestorationState:
        """Restore, clamp to [0,1], and refuse a result of another shape or with NaN.

        Raises:
            ShapeError: if the stage changed the shape.
            RangeError: if the result is not finite.
        """
        image = self.restore(state.image, state)
        if image.shape != state.image.shape:
            raise ShapeError(f"{self.name} to return shape {tuple(state.image.shape)}", image.shape)
        image = image.float().clamp(0, 1)  # NaN survives the clamp, infinities do not
        if not bool(torch.isfinite(image).all()):
            raise RangeError(
                f"{self.name} returned values that are not finite; try dtype fp32", 0, float("nan")
            )
        return state.with_image(image)
