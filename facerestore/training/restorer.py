"""Train any stage from pictures to pictures: its network in full, or an adapter on it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError
from facerestore.core.precision import FP32, Target
from facerestore.core.state import RestorationState
from facerestore.diffusion.attached import adapter_of, export_peft
from facerestore.stages.base import StageConfig
from facerestore.training.one_step import OneStepTask
from facerestore.training.task import Batch
from facerestore.weights.write import write_tensors

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

_WHOLE_BATCH = 1 << 20  # pictures per call of the network: a batch of training is never split


class RestorerTask(OneStepTask):
    """Trained as a one-step restorer is, with the same losses and adversaries, but for those on latents.

    Fields that losses read: `image` (not clamped, where the stage does not resize), `hq`, `lq`, `coarse`,
    `seeds`, the boxes.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(OneStepTask.Config):
        """Settings.

        Raises:
            ConfigError: if the adversary judges latents.
        """

        stage: StageConfig  # pyright: ignore[reportIncompatibleVariableOverride] - any stage, not only one-step
        """Who is trained: an `ImageStage`."""
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
            built: Any = OneStepTask.Config.build(self, store, replace(target, dtype="fp32"))
            built.stage.layout = replace(built.stage.layout, batch=_WHOLE_BATCH)
            return RestorerTask(built.stage, self, built.objective, built.adversary, built.before)

    def fields(self, batch: Batch) -> dict[str, Any]:
        """What the stage makes of a batch, and all that losses may read."""
        coarse = self.coarse(batch.lq, batch.seeds) if batch.coarse is None else batch.coarse
        image = self.stage.restore(coarse, RestorationState.start(coarse, batch.seeds))
        batch.made["image"] = image.detach()
        return {
            "image": image,
            "hq": batch.hq,
            "lq": batch.lq,
            "coarse": coarse,
            "seeds": batch.seeds,
            **batch.boxes,
        }

    def export(self, folder: Path, metadata: Mapping[str, str]) -> tuple[Path, ...]:
        """What was trained in full, as the stage's `Config(weight=...)` loads it; adapters as PEFT folders.

        A network that the stage calls `net` is its only one, and its file has the name of the stage. Each
        file says the settings of the stage.
        """
        config: BaseConfig = self.config.stage
        facts = {"base": self.stage.name, "stage": json.dumps(config.to_dict()), **metadata}
        files: list[Path] = []
        for lora in self.config.adapters:
            adapter = adapter_of(self.stage.get_submodule(lora.net))
            place = export_peft(adapter, folder / lora.net.replace(".", "_"), scale=None, **facts)
            files += sorted(path for path in place.iterdir() if path.is_file())
        for name in self.config.whole:
            stem = self.stage.name if name == "net" else name.replace(".", "_")
            files.append(folder / f"{stem}.safetensors")
            write_tensors(files[-1], self.stage.get_submodule(name).state_dict(), facts)
        return tuple(files)
