"""What a stage is: a module that maps a `RestorationState` to a `RestorationState`."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import nn

from facerestore.core.config import Config
from facerestore.core.errors import RangeError, ShapeError
from facerestore.core.offload import Need, Offload, on_device
from facerestore.core.precision import FP32, DtypeName, Layout, Target, in_float32
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

    def build(self, store: "WeightStore", target: Target = FP32) -> "Stage":
        """Build the stage on the CPU; the only place that reads weight files.

        Args:
            store: where weights are found.
            target: what it is built for, so that weights are loaded in the dtype in which they will run.
        """
        raise TypeError(f"{type(self).__qualname__} must say how it is built")

    def needs(self, store: "WeightStore", target: Target) -> tuple[Need, ...]:
        """Memory that it needs, stage by stage, from the sizes that the manifest knows; 512 px, one face."""
        del store, target
        return ()

    def tiny(self) -> Self:
        """The same settings at a size for tests, without weights."""
        return self


class Stage(nn.Module, ABC):
    """Abstract: one restorer or operation. Its `config` names it in reports.

    Attributes:
        config: its settings.
        device: where it runs.
        offload: whether its networks lie there only while the stage, or the network, runs.
        layout: of its largest network.
    """

    config: StageConfig

    def __init__(self) -> None:
        super().__init__()
        self.device = torch.device("cpu")
        self.offload: Offload = "none"
        self.layout = Layout(dtype=torch.float32, channels_last=False, batch=1)

    @property
    def name(self) -> str:
        """Short name for reports and snapshots, such as `realesrgan`."""
        return type(self).__module__.rsplit(".", 1)[-1]

    def networks(self, target: Target, batch: int | None) -> Iterator[tuple[nn.Module, Layout]]:
        """Every network and its measured layout, the largest first; stages without networks have none.

        Args:
            target: where they run, and in which dtype.
            batch: images per call; None takes the measured best.
        """
        del target, batch
        return iter(())

    def settle(self) -> None:
        """Rewrite what is only asked from now on, and no longer trained; nothing, for most stages."""

    def place(
        self,
        device: torch.device,
        dtype: DtypeName,
        batch: int | None = None,
        offload: Offload = "none",
        *,
        compiled: bool = False,
        trained: bool = False,
    ) -> Self:
        """Bring every network into its measured layout and, unless it is offloaded, to the device.

        Args:
            device: where it runs.
            dtype: `auto` takes the measured best.
            batch: images per forward call; None takes the measured best.
            offload: when the networks lie on the device.
            compiled: whether networks are compiled by `torch.compile` when they first run, on CUDA with
                graphs; each size of picture is compiled anew.
            trained: whether it is to be trained afterwards, so that nothing is rewritten that then changes.

        Raises:
            UnsupportedDtype: if the device, or a network, does not compute in the dtype.
        """
        if not trained:
            self.settle()
        self.device, self.offload = device, offload
        home = device if offload == "none" else torch.device("cpu")
        placed = list(self.networks(Target(device=device, dtype=dtype), batch))
        for net, layout in placed:
            layout.place(net, home)
            for module in net.modules():  # codecs cast what they are given themselves
                if hasattr(module, "layout"):
                    module.layout = layout  # pyright: ignore[reportArgumentType] - no tensor
            if compiled:
                for part in getattr(net, "halves", (net,)):  # a codec's encoder and decoder
                    part.compile(mode="reduce-overhead" if device.type == "cuda" else None, dynamic=False)
        if placed:
            self.layout = placed[0][1]
        for key, buffer in self._buffers.items():  # a prompt: small, and what `model` never moves
            self._buffers[key] = None if buffer is None else buffer.to(device)
        return self

    def using(self, *nets: nn.Module | None) -> AbstractContextManager[None]:
        """Have networks on the device while they run, where each is offloaded by itself."""
        if self.offload != "model":
            return nullcontext()
        return on_device([net for net in nets if net is not None], self.device)

    @abstractmethod
    def forward(self, state: RestorationState) -> RestorationState:
        """Return the state after this stage."""


class ImageStage(Stage):
    """Abstract: a stage that only makes a new image; size, range and finiteness are checked here."""

    @abstractmethod
    def restore(self, image: torch.Tensor, state: RestorationState) -> torch.Tensor:
        """Map (B,3,H,W) float32 in [0,1] to the same form."""

    def forward(self, state: RestorationState) -> RestorationState:
        """Restore, clamp to [0,1], and refuse a result of another shape or with NaN; no images stay none.

        Where a network that computes below float32 returns what is not finite, the stage runs once more in
        float32, layer by layer, and warns.

        Raises:
            ShapeError: if the stage changed the shape.
            RangeError: if the result is not finite in float32 either.
        """
        if not len(state.image):
            return state
        with on_device([self], self.device) if self.offload == "stages" else nullcontext():
            image = self._checked(state)
            if not _finite(image) and self.layout.dtype != torch.float32:
                warnings.warn(
                    f"{self.name}: values that are not finite came out in {self.layout.dtype}; it runs once "
                    "more in float32, slower. Choose dtype fp32, or bf16 in place of fp16, to avoid this",
                    RuntimeWarning,
                    stacklevel=2,
                )
                with in_float32(self):
                    image = self._checked(state)
        if not _finite(image):
            raise RangeError(
                f"{self.name} returned values that are not finite, in float32 too; a weight is damaged, or "
                "an adapter does not belong to its network",
                0,
                float("nan"),
            )
        return state.with_image(image.clamp(0, 1))

    def _checked(self, state: RestorationState) -> torch.Tensor:
        image = self.restore(state.image, state)
        if image.shape != state.image.shape:
            raise ShapeError(f"{self.name} to return shape {tuple(state.image.shape)}", image.shape)
        return image.float()


def _finite(image: torch.Tensor) -> bool:
    return bool(torch.isfinite(image).all())
