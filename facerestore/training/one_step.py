"""Train a one-step restorer: adapters, parts trained in full, losses on its picture and its latents."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError
from facerestore.core.precision import FP32, Target
from facerestore.core.state import RestorationState
from facerestore.diffusion.attached import adapter_of, attach, disabled, export_diffusers, export_peft
from facerestore.losses.objective import Objective
from facerestore.stages.base import Stage, StageConfig
from facerestore.stages.one_step import OneStepConfig, OneStepStage
from facerestore.training.adversary import Adversary
from facerestore.training.optimizer import Optimizer
from facerestore.training.task import Batch, Task, TaskConfig, Terms, mean_of_batch
from facerestore.training.terms import Loss, build_terms
from facerestore.weights.write import write_tensors

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

GENERATOR, DISCRIMINATOR = "generator", "discriminator"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoRA(BaseConfig):
    """An adapter that is trained."""

    net: str
    """Dotted name of the network below the stage: `unet`, `transformer`, `codec.vae.encoder`."""
    rank: int
    """Inner width."""
    alpha: float
    """The scale times the rank."""
    targets: tuple[str, ...]
    """Endings of the names of layers, whole dotted parts; one that starts with `re:` is an expression for
    whole names."""

    def attach(self, stage: nn.Module, seed: int) -> None:
        """Put it beside the layers, at first without effect.

        Raises:
            ConfigError: if the stage has no such network, or the network no such layer.
        """
        try:
            net = stage.get_submodule(self.net)
        except AttributeError as error:
            raise ConfigError(f"{type(stage).__name__} has no network {self.net!r} to train") from error
        first = self.targets[0]
        pattern = first.removeprefix("re:") if first.startswith("re:") else self.targets
        attach(net, rank=self.rank, alpha=self.alpha, targets=pattern, seed=seed)


class OneStepTask(Task):
    """The generator is a stage; an adversary may judge its pictures or its latents.

    Fields that losses read: `image` (not clamped), `hq`, `lq`, `coarse`, `z_lq`, `z_0`, `z_hq` (of the sharp
    face, by the autoencoder without its adapter, encoded only where it is read), `seeds`, the boxes.

    Args:
        stage: placed; what is to be trained is trainable.
        config: the settings.
        objective: of the generator.
        adversary: None trains without.
        before: what restores the degraded face first, frozen.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(TaskConfig):
        """Settings."""

        stage: OneStepConfig
        """Who is trained."""
        before: StageConfig | None = None
        """What restores the degraded face first, as a coarse stage; it is frozen."""
        adapters: tuple[LoRA, ...] = ()
        """On its networks."""
        whole: tuple[str, ...] = ()
        """Dotted names of modules of the stage that are trained in full."""
        losses: tuple[Loss, ...]
        """On the picture and the latents."""
        adversary: Adversary.Config | None = None
        """Who tells restored from sharp faces."""
        generator: Optimizer = Optimizer()
        """Of the stage."""
        discriminator: Optimizer = Optimizer()
        """Of the adversary."""
        seed: int = 0
        """Of fresh adapters."""

        def optimizers(self) -> Mapping[str, Optimizer]:
            """Of both players."""
            return {GENERATOR: self.generator, DISCRIMINATOR: self.discriminator}

        def weights(self) -> tuple[str, ...]:
            """Those of the stages, the losses and the adversary."""
            parts = [self.stage.weights(), *(loss.weights() for loss in self.losses)]
            parts += [part.weights() for part in (self.before, self.adversary) if part is not None]
            return tuple(dict.fromkeys(name for part in parts for name in part))

        def build(self, store: "WeightStore", target: Target = FP32) -> "OneStepTask":
            """Load everything, place it, and attach fresh adapters.

            Raises:
                ConfigError: if there is nothing to train, or it is not there.
                WeightsError: if a weight is missing, damaged, or does not fit.
            """
            store.require(self.weights())
            stage: Any = self.stage.build(store, target)
            stage.place(target.device, target.dtype, trained=True)
            for index, lora in enumerate(self.adapters):
                lora.attach(stage, self.seed + index)
            for name in self.whole:
                stage.get_submodule(name).float().requires_grad_(True)
            before = None
            if self.before is not None:
                before = self.before.build(store, target).place(target.device, target.dtype)
            objective = Objective(build_terms(self.losses, store)).to(target.device).requires_grad_(False)
            adversary = None if self.adversary is None else self.adversary.build(store).to(target.device)
            return OneStepTask(stage, self, objective, adversary, before)

        def tiny(self) -> "OneStepTask.Config":
            """Every network at its smallest with random weights."""
            return replace(
                self,
                stage=self.stage.tiny(),
                before=None if self.before is None else self.before.tiny(),
                adapters=tuple(
                    replace(lora, rank=2, alpha=2 * lora.alpha / lora.rank) for lora in self.adapters
                ),
                losses=tuple(loss.tiny() for loss in self.losses),
                adversary=None if self.adversary is None else self.adversary.tiny(),
            )

    def __init__(
        self,
        stage: OneStepStage,
        config: Config,
        objective: Objective,
        adversary: Adversary | None = None,
        before: Stage | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.stage = stage
        self.objective = objective
        self.adversary = adversary
        self.before = before

    def players(self) -> Mapping[str, nn.Module]:
        """The stage, then the adversary."""
        return {GENERATOR: self.stage} | ({} if self.adversary is None else {DISCRIMINATOR: self.adversary})

    def loss(self, player: str, batch: Batch) -> tuple[Tensor, Terms]:
        """The objective and what the adversary says; then the adversary's own loss on the same faces."""
        if player == DISCRIMINATOR:
            return self._adversary_loss(batch)
        fields = self.fields(batch)
        loss, terms = self.objective(fields)
        if self.adversary is not None:
            judged = self.adversary.generator(fields, batch)
            if judged is not None:
                loss = loss + self.config.adversary.weight * mean_of_batch(judged)  # pyright: ignore[reportOptionalMemberAccess]
                terms["adversary"] = judged.detach().mean()
        return loss, terms

    def fields(self, batch: Batch) -> dict[str, Any]:
        """What the stage makes of a batch, and all that losses may read."""
        coarse = self.coarse(batch.lq, batch.seeds)
        made = self.stage.one_step(coarse, batch.seeds)
        fields: dict[str, Any] = {
            "image": made.image,
            "hq": batch.hq,
            "lq": batch.lq,
            "coarse": coarse,
            "z_lq": made.z_lq,
            "z_0": made.z_0,
            "seeds": batch.seeds,
            "noise": self.stage.config.noise_timestep / 1000,
            **batch.boxes,
        }
        if "z_hq" in self._read():
            fields["z_hq"] = self.encode(batch.hq, batch.seeds)
        batch.made.update(
            {name: value.detach() for name, value in fields.items() if isinstance(value, Tensor)}
        )
        return fields

    @torch.no_grad()
    def coarse(self, lq: Tensor, seeds: tuple[int, ...]) -> Tensor:
        """What goes into the stage: degraded faces (B,3,H,W), or what the stage before makes of them."""
        if self.before is None:
            return lq
        return self.before(RestorationState.start(lq, seeds)).image

    @torch.no_grad()
    def encode(self, image: Tensor, seeds: tuple[int, ...]) -> Tensor:
        """Scaled latents of pictures (B,3,H,W) in [0,1] by the autoencoder as it was before training."""
        with disabled(self.stage.codec):
            return self.stage.codec.encode(image, seeds, self.stage.config.posterior)

    def restore(self, lq: Tensor, seeds: tuple[int, ...]) -> Tensor:
        """(B,3,H,W) in [0,1] to the same, clamped."""
        return self.stage(RestorationState.start(self.coarse(lq, seeds), seeds)).image

    def export(self, folder: Path, metadata: Mapping[str, str]) -> tuple[Path, ...]:
        """Each adapter as a PEFT folder, those of a pipeline's parts for diffusers too; other parts whole."""
        files: list[Path] = []
        facts = {key: f"{value:g}" for key, value in self.config.stage.made_for().items()} | dict(metadata)
        base = _base(self.config.stage)
        for lora in self.config.adapters:
            adapter = adapter_of(self.stage.get_submodule(lora.net))
            place = export_peft(adapter, folder / lora.net.replace(".", "_"), base=base, scale=None, **facts)
            files += sorted(path for path in place.iterdir() if path.is_file())
            if "." not in lora.net:
                files.append(
                    export_diffusers(adapter, folder, component=lora.net, base=base, scale=None, **facts)
                )
        for name in self.config.whole:
            path = folder / f"{name.replace('.', '_')}.safetensors"
            write_tensors(path, self.stage.get_submodule(name).state_dict(), {"base": base, **facts})
            files.append(path)
        return tuple(files)

    def _adversary_loss(self, batch: Batch) -> tuple[Tensor, Terms]:
        assert self.adversary is not None  # there is no such player otherwise
        each = self.adversary.discriminator(batch)
        return mean_of_batch(each), {"adversary": each.detach().mean()}

    def _read(self) -> frozenset[str]:
        own = frozenset[str]() if self.adversary is None else self.adversary.reads
        return self.objective.reads | own


def _base(stage: OneStepConfig) -> str:
    """What an adapter of the stage belongs to: the group of its network in the manifest."""
    network = stage.files()[0]
    return "made" if network is None else network.rpartition("/")[0]
