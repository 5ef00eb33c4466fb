"""Train any stage from pictures to pictures: its network in full, or an adapter on it."""

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from facerestore.core.errors import ConfigError
from facerestore.core.precision import FP32, Target
from facerestore.core.state import RestorationState
from facerestore.training.stage_task import StageTask
from facerestore.training.task import Batch

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

_WHOLE_BATCH = 1 << 20  # pictures per call of the network: a batch of training is never split


class RestorerTask(StageTask):
    """The generator is any `ImageStage`, trained on what it makes and not on latents.

    Fields that losses read: `image` (not clamped, where the stage does not resize), `hq`, `lq`, `coarse`,
    `seeds`, the boxes.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(StageTask.Config):
        """Settings.

        Raises:
            ConfigError: if the adversary judges latents.
        """

        whole: tuple[str, ...] = ("net",)
        """Dotted names of modules of the stage that are trained in full; none where adapters are."""

        def __post_init__(self) -> None:
            if self.adversary is not None and self.adversary.net == "latent":
                raise ConfigError("RestorerTask has no latents to judge; choose patch, dinov2 or dinov3")

        def build(self, store: "WeightStore", target: Target = FP32) -> "RestorerTask":
            """Load everything in float32, whatever it is computed in: these networks are small.

            Raises:
                ConfigError: if what is to be trained is not there.
                WeightsError: if a weight is missing, damaged, or does not fit.
            """
            parts = self.parts(store, replace(target, dtype="fp32"))
            parts["stage"].layout = replace(parts["stage"].layout, batch=_WHOLE_BATCH)
            return RestorerTask(**parts)

    def made_of(self, coarse: Tensor, batch: Batch) -> dict[str, Any]:
        """What the stage makes of its input (B,3,H,W): `image`."""
        return {"image": self.stage.restore(coarse, RestorationState.start(coarse, batch.seeds))}

    def facts(self) -> dict[str, str]:
        """The stage and its settings."""
        return {"base": self.stage.name, "stage": json.dumps(self.config.stage.to_dict())}
