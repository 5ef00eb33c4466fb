"""Train a one-step restorer: adapters, parts trained in full, losses on its picture and its latents."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from facerestore.core.precision import FP32, Target
from facerestore.diffusion.attached import disabled
from facerestore.imaging.pad import pad_to_multiple
from facerestore.stages.one_step import OneStepConfig
from facerestore.training.optimizer import Optimizer
from facerestore.training.score import SCORE, Score
from facerestore.training.stage_task import StageTask
from facerestore.training.task import Batch

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore


class OneStepTask(StageTask):
    """The generator is a one-step stage; a teacher may say what to make.

    Fields that losses read: `image` (not clamped), `hq`, `lq`, `coarse`, `z_lq`, `z_0`, `z_hq` (of the sharp
    face, by the autoencoder without its adapter, encoded only where it is read), `timesteps`, `seeds`, the
    boxes.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(StageTask.Config):
        """Settings."""

        stage: OneStepConfig
        """Who is trained."""
        score: Score.Config | None = None
        """Who teaches by what it would denoise."""
        second: Optimizer = Optimizer()
        """Of the second network beside the teacher."""

        def others(self) -> dict[str, Any]:
            """Also the teacher."""
            taught = {"score": self.score} if self.score is not None else {}
            return StageTask.Config.others(self) | taught

        def optimizers(self) -> Mapping[str, Optimizer]:
            """Of all players."""
            return {**StageTask.Config.optimizers(self), SCORE: self.second}

        def build(self, store: "WeightStore", target: Target = FP32) -> "OneStepTask":
            """Load everything, place it, and attach fresh adapters.

            Raises:
                ConfigError: if there is nothing to train, or it is not there.
                WeightsError: if a weight is missing, damaged, or does not fit.
            """
            return OneStepTask(**self.parts(store, target))

        def parts(self, store: "WeightStore", target: Target = FP32) -> dict[str, Any]:
            """Refuses a teacher that does not know the latents of the stage; raises as `build`."""
            parts = StageTask.Config.parts(self, store, target)
            if self.score is not None:
                parts["score"].require_latents_of(parts["stage"].codec)
            return parts

    def fields(self, batch: Batch) -> dict[str, Any]:
        """Also the latents of the sharp faces, where they are read."""
        fields = super().fields(batch)
        if "z_hq" in self.config.reads():
            moments = batch.moments.get("z_hq")
            moments = self.moments(batch.hq) if moments is None else moments
            z_hq = self.stage.codec.from_moments(moments, batch.seeds, self.stage.config.posterior)
            batch.made["z_hq"] = fields["z_hq"] = z_hq
        return fields

    def made_of(self, coarse: Tensor, batch: Batch) -> dict[str, Any]:
        """What the stage makes of its input (B,3,H,W): `image`, `z_lq`, `z_0`, and the `timesteps` (B,)."""
        made = self.stage.one_step(coarse, batch.seeds, batch.moments.get("z_lq"))
        asked = int(self.stage.config.noise_timestep)
        timesteps = torch.full((len(coarse),), asked, device=coarse.device)
        return {"image": made.image, "z_lq": made.z_lq, "z_0": made.z_0, "timesteps": timesteps}

    @torch.no_grad()
    def moments(self, image: Tensor) -> Tensor:
        """Posteriors of pictures (B,3,H,W) in [0,1] by the autoencoder as it was before training."""
        with disabled(self.stage.codec):
            return self.stage.codec.moments(pad_to_multiple(image, self.stage.multiple_px))

    def facts(self) -> dict[str, str]:
        """The base model, and the noise level that it was trained at."""
        level = self.config.stage.made_for()
        return {"base": base_of(self.config.stage), **{key: f"{value:g}" for key, value in level.items()}}


def base_of(stage: OneStepConfig) -> str:
    """What an adapter of the stage belongs to: the group of its network in the manifest."""
    network = stage.files()[0]
    return "made" if network is None else network.rpartition("/")[0]
