"""What a recipe is: everything that is needed to build a pipeline, as frozen data."""

from dataclasses import dataclass, replace
from typing import Literal, Self

import torch

from facerestore.background import BackgroundConfig
from facerestore.core.config import Config
from facerestore.core.errors import ConfigError
from facerestore.core.offload import OFFLOADS, Offload, Plan, free_bytes, plan
from facerestore.core.precision import DtypeName, Target, choose_layout, resolve_device
from facerestore.faces.detect import FaceDetector
from facerestore.features.identity import FaceDescriptor
from facerestore.pipeline import Pipeline
from facerestore.stages.base import Stage, StageConfig
from facerestore.stages.compose import on_demand
from facerestore.weights.store import WeightStore

_FACE_WEIGHTS = ("mtcnn", "face-recognition")  # to find faces, and to measure identity
Status = Literal["runs offline", "needs weights", "train it yourself"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Config):
    """A named system: which stages restore a face, and how faces are found."""

    name: str
    """What users type."""
    summary: str
    """One line for the table of recipes."""
    status: Status
    """Whether it can be run."""
    stage: StageConfig
    """Restores aligned faces."""
    detector: FaceDetector.Config = FaceDetector.Config()
    """Finds them."""
    background: BackgroundConfig = BackgroundConfig()
    """Enlarges the photo around them, when asked."""
    min_face_px: float = 32.0
    """Faces whose box is smaller than this, in pixels of the photo, are reported and not restored."""

    def weights(self) -> tuple[str, ...]:
        """Names of every weight that the whole pipeline needs, once."""
        names = (*self.stage.weights(), *self.background.weights(), *_FACE_WEIGHTS)
        return tuple(dict.fromkeys(names))

    def build(
        self,
        store: WeightStore | None = None,
        *,
        device: str = "auto",
        dtype: DtypeName = "auto",
        batch_size: int | None = None,
        offload: Offload | Literal["auto"] = "auto",
        compiled: bool = False,
    ) -> Pipeline:
        """Load the weights and put everything on the device.

        Args:
            store: where weights are found.
            device: `auto | cpu | cuda[:N] | mps`.
            dtype: `auto` takes the measured best of each network.
            batch_size: faces per forward call; None takes the measured best.
            offload: what lies on the device when; `auto` follows from the free memory, see `plan`.
            compiled: whether networks are compiled by `torch.compile` when they first run; then nothing is
                offloaded.

        Raises:
            ConfigError: if an option has a bad value.
            WeightsError: if a weight is missing or damaged.
            DeviceError: if the device is not there.
            UnsupportedDtype: if the device does not compute in the dtype.
        """
        store = store or WeightStore()
        if batch_size is not None and batch_size < 1:
            raise ConfigError(f"batch_size is at least 1, got {batch_size}")
        if offload != "auto" and offload not in OFFLOADS:
            raise ConfigError(
                f"offload is auto, {', '.join(OFFLOADS[:-1])} or {OFFLOADS[-1]}, got {offload!r}"
            )
        where = resolve_device(device)
        if compiled and offload not in ("auto", "none"):
            raise ConfigError("what is compiled stays where it is: compiled=True goes with offload='none'")
        if compiled:
            offload = "none"
        elif offload == "auto":
            offload = self.plan(store, device=where, dtype=dtype).offload
        store.require(self.weights())

        def make(config: StageConfig) -> Stage:
            stage = config.build(store, Target(device=where, dtype=dtype))
            return stage.place(
                where, dtype, batch_size, "none" if where.type == "cpu" else offload, compiled=compiled
            )

        on_cpu = where.type == "cpu" and offload != "none"
        stage = on_demand(self.stage, make) if on_cpu else make(self.stage)
        return Pipeline(
            self,
            stage,
            detector=FaceDetector.load(store, self.detector).to(where),
            descriptor=FaceDescriptor.load(store).to(where),
            upscaler=lambda: self.background.build(store).place(where, dtype, batch_size),
            device=where,
            dtype=str(choose_layout("rrdbnet", where, dtype).dtype).removeprefix("torch."),
            min_face_px=self.min_face_px,
            weights={name: store.sha256(name) for name in self.weights()},
        )

    def plan(self, store: WeightStore, *, device: torch.device, dtype: DtypeName = "auto") -> Plan:
        """How the stages share the memory that is free on a device now, with the arithmetic.

        Sizes are the manifest's, for one face of 512 px at a time; the weights need not be there.
        """
        needs = self.stage.needs(store, Target(device=device, dtype=dtype))
        return plan(needs, free_bytes(device), device)

    def tiny(self) -> Self:
        """The same recipe with tiny random restoring networks, for tests; faces are found as ever."""
        return replace(self, stage=self.stage.tiny(), background=self.background.tiny())
