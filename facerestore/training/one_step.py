"""Train a one-step restorer: adapters, parts trained in full, losses on its picture and its latents."""

import re
from collections.abc import Iterator, Mapping
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
from facerestore.training.score import Score
from facerestore.training.task import Batch, Task, TaskConfig, Terms, mean_of_batch
from facerestore.training.terms import Loss, build_terms
from facerestore.weights.write import write_tensors

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

GENERATOR, DISCRIMINATOR, SCORE = "generator", "discriminator", "score"


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
    name: str = "default"
    """Of the adapter; two on one network have two names."""

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
        attach(net, rank=self.rank, alpha=self.alpha, targets=pattern, name=self.name, seed=seed)


class OneStepTask(Task):
    """The generator is a stage; an adversary may judge what it makes, a teacher may say what to make.

    Fields that losses read: `image` (not clamped), `hq`, `lq`, `coarse`, `z_lq`, `z_0`, `z_hq` (of the sharp
    face, by the autoencoder without its adapter, encoded only where it is read), `timesteps`, `seeds`, the
    boxes.

    Args:
        stage: placed; what is to be trained is trainable.
        config: the settings.
        objective: of the generator.
        adversary: None trains without.
        before: what restores the degraded face first, frozen.
        score: the teacher; None trains without.
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
        """Dotted names of modules of the stage that are trained in full; one that starts with `re:` is an
        expression for whole names."""
        losses: tuple[Loss, ...]
        """On the picture and the latents."""
        adversary: Adversary.Config | None = None
        """Who tells restored from sharp faces."""
        score: Score.Config | None = None
        """Who teaches by what it would denoise."""
        generator: Optimizer = Optimizer()
        """Of the stage."""
        discriminator: Optimizer = Optimizer()
        """Of the adversary."""
        second: Optimizer = Optimizer()
        """Of the second network beside the teacher."""
        seed: int = 0
        """Of fresh adapters."""

        def optimizers(self) -> Mapping[str, Optimizer]:
            """Of all players."""
            return {GENERATOR: self.generator, DISCRIMINATOR: self.discriminator, SCORE: self.second}

        def weights(self) -> tuple[str, ...]:
            """Those of the stages, the losses, the adversary and the teacher."""
            parts = [self.stage.weights(), *(loss.weights() for loss in self.losses)]
            others = (self.before, self.adversary, self.score)
            parts += [part.weights() for part in others if part is not None]
            return tuple(dict.fromkeys(name for part in parts for name in part))

        def build(self, store: "WeightStore", target: Target = FP32) -> "OneStepTask":
            """Load everything, place it, and attach fresh adapters.

            Raises:
                ConfigError: if there is nothing to train, or it is not there.
                WeightsError: if a weight is missing, damaged, or does not fit.
            """
            return OneStepTask(*self.parts(store, target))

        def build_stage(self, store: "WeightStore", target: Target) -> Any:
            """The stage as it is before training, not placed."""
            return self.stage.build(store, target)

        def parts(self, store: "WeightStore", target: Target) -> tuple[Any, ...]:
            """What a task is made of, as `OneStepTask` takes it; raises as `build`."""
            store.require(self.weights())
            stage = self.build_stage(store, target)
            stage.place(target.device, target.dtype, trained=True)
            for index, lora in enumerate(self.adapters):
                lora.attach(stage, self.seed + index)
            for _, module in _named(stage, self.whole):
                module.float().requires_grad_(True)
            before = None
            if self.before is not None:
                before = self.before.build(store, target).place(target.device, target.dtype)
            objective = Objective(build_terms(self.losses, store)).to(target.device).requires_grad_(False)
            adversary = None if self.adversary is None else self.adversary.build(store).to(target.device)
            score = None if self.score is None else self.score.build(store, target)
            if score is not None:
                score.require_latents_of(stage.codec)
            return stage, self, objective, adversary, before, score

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
                score=None if self.score is None else self.score.tiny(),
            )

    def __init__(
        self,
        stage: OneStepStage,
        config: Config,
        objective: Objective,
        adversary: Adversary | None = None,
        before: Stage | None = None,
        score: Score | None = None,
    ) -> None:
        super().__init__()
        self.config: OneStepTask.Config = config
        self.stage = stage
        self.objective = objective
        self.adversary = adversary
        self.before = before
        self.score = score

    def players(self) -> Mapping[str, nn.Module]:
        """The stage, then the adversary, then the second network beside the teacher."""
        players: dict[str, nn.Module] = {GENERATOR: self.stage}
        if self.adversary is not None:
            players[DISCRIMINATOR] = self.adversary
        if self.score is not None and self.score.trains:
            players[SCORE] = self.score
        return players

    def loss(self, player: str, batch: Batch) -> tuple[Tensor, Terms]:
        """The objective, and what adversary and teacher say; then their own losses on the same faces."""
        if player == DISCRIMINATOR and self.adversary is not None:
            return _alone("adversary", self.adversary.discriminator(batch))
        if player == SCORE and self.score is not None:
            return _alone("denoising", self.score.second(batch))
        fields = self.fields(batch)
        loss, terms = self.objective(fields)
        for name, part in (("adversary", self.adversary), ("score", self.score)):
            each = None if part is None else part.generator(fields, batch)
            if part is not None and each is not None:
                loss = loss + part.config.weight * mean_of_batch(each)
                terms[name] = each.detach().mean()
        return loss, terms

    def fields(self, batch: Batch) -> dict[str, Any]:
        """What the stage makes of a batch, and all that losses may read."""
        coarse = self.coarse(batch.lq, batch.seeds) if batch.coarse is None else batch.coarse
        fields: dict[str, Any] = self.made_of(coarse, batch.seeds) | {
            "hq": batch.hq,
            "lq": batch.lq,
            "coarse": coarse,
            "seeds": batch.seeds,
            **batch.boxes,
        }
        if "z_hq" in self._read():
            fields["z_hq"] = self.encode(batch.hq, batch.seeds)
        batch.made.update(
            {name: value.detach() for name, value in fields.items() if isinstance(value, Tensor)}
        )
        return fields

    def made_of(self, coarse: Tensor, seeds: tuple[int, ...]) -> dict[str, Any]:
        """What the stage makes of its input (B,3,H,W): `image`, `z_lq`, `z_0`, and the `timesteps` (B,)."""
        made = self.stage.one_step(coarse, seeds)
        asked = int(self.stage.config.noise_timestep)
        timesteps = torch.full((len(coarse),), asked, device=coarse.device)
        return {"image": made.image, "z_lq": made.z_lq, "z_0": made.z_0, "timesteps": timesteps}

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
        base = base_of(self.config.stage)
        for lora in self.config.adapters:
            adapter = adapter_of(self.stage.get_submodule(lora.net))
            place = export_peft(adapter, folder / lora.net.replace(".", "_"), base=base, scale=None, **facts)
            files += sorted(path for path in place.iterdir() if path.is_file())
            if "." not in lora.net:
                files.append(
                    export_diffusers(adapter, folder, component=lora.net, base=base, scale=None, **facts)
                )
        for name, module in _named(self.stage, self.config.whole):
            path = folder / f"{name.replace('.', '_')}.safetensors"
            write_tensors(path, module.state_dict(), {"base": base, **facts})
            files.append(path)
        return tuple(files)

    def _read(self) -> frozenset[str]:
        own = frozenset[str]() if self.adversary is None else self.adversary.reads
        return self.objective.reads | own


def _alone(name: str, each: Tensor) -> tuple[Tensor, Terms]:
    """The loss of a player that has one term, (B,)."""
    return mean_of_batch(each), {name: each.detach().mean()}


def _named(stage: nn.Module, names: tuple[str, ...]) -> Iterator[tuple[str, nn.Module]]:
    """The modules that names and expressions mean.

    Raises:
        ConfigError: if one means nothing.
    """
    modules = dict(stage.named_modules())
    for name in names:
        pattern = name.removeprefix("re:") if name.startswith("re:") else re.escape(name)
        found = [path for path in modules if re.fullmatch(pattern, path)]
        if not found:
            raise ConfigError(f"{type(stage).__name__} has no module {name!r} to train in full")
        for path in found:
            yield path, modules[path]


def base_of(stage: OneStepConfig) -> str:
    """What an adapter of the stage belongs to: the group of its network in the manifest."""
    network = stage.files()[0]
    return "made" if network is None else network.rpartition("/")[0]
