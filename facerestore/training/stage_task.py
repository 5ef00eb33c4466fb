"""What it takes to train any stage: what of it is trained, losses on what it makes, who judges that."""

import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import torch
from torch import Tensor, nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError
from facerestore.core.precision import FP32, Target
from facerestore.core.state import RestorationState
from facerestore.diffusion.attached import adapter_of, attach, export_diffusers, export_peft
from facerestore.losses.objective import Objective
from facerestore.stages.base import StageConfig
from facerestore.training.adversary import Adversary
from facerestore.training.optimizer import Optimizer
from facerestore.training.roi import ROI, RoiAdversary
from facerestore.training.task import (
    DISCRIMINATOR,
    GENERATOR,
    Batch,
    Task,
    TaskConfig,
    Terms,
    mean_of_batch,
)
from facerestore.training.terms import LOSSES, Loss, build_terms
from facerestore.weights.write import write_tensors

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

PIPELINE_PARTS = ("unet", "transformer")
"""What stages, and pipelines of diffusers, call their largest network."""


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


class Other(Protocol):
    """Who has a say beside the generator: an adversary, a teacher."""

    @property
    def player(self) -> str | None:
        """As which player it trains itself; None where it does not."""

    def say(self, fields: dict[str, Any], batch: Batch) -> Iterable[tuple[str, float, Tensor]]:
        """Its part in the generator's loss: the name, the weight and the values (B,) of each term."""
        ...

    def own(self, batch: Batch) -> tuple[str, Tensor]:
        """Its own loss (B,) on what the generator's turn left in `batch.made`, and what that is called."""
        ...


class StageTask(Task):
    """Abstract: the generator is a stage, and others may have a say in what it makes.

    Args:
        stage: placed; what is to be trained is trainable.
        config: the settings.
        objective: of the generator.
        before: what restores the degraded face first, frozen; None where nothing does.
        others: by the names of their fields in the settings, in the order of their turns.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(TaskConfig):
        """Settings."""

        stage: StageConfig
        """Who is trained."""
        before: StageConfig | None = None
        """What restores the degraded face first, as a coarse stage; it is frozen."""
        adapters: tuple[LoRA, ...] = ()
        """On its networks."""
        whole: tuple[str, ...] = ()
        """Dotted names of modules of the stage that are trained in full; one that starts with `re:` is an
        expression for whole names."""
        losses: tuple[Loss, ...]
        """On what it makes."""
        adversary: Adversary.Config | None = None
        """Who tells restored from sharp faces."""
        roi: RoiAdversary.Config | None = None
        """Tells restored from sharp eyes and mouths; `data.components` names the file of their places."""
        generator: Optimizer = Optimizer()
        """Of the stage."""
        discriminator: Optimizer = Optimizer()
        """Of the adversary, and of that for eyes and mouths."""
        seed: int = 0
        """Of fresh adapters."""

        def others(self) -> dict[str, Any]:
            """Who has a say beside the generator: settings by field, in the order of their turns."""
            both = {"adversary": self.adversary, "roi": self.roi}
            return {name: other for name, other in both.items() if other is not None}

        def optimizers(self) -> Mapping[str, Optimizer]:
            """Of all players."""
            return {GENERATOR: self.generator, DISCRIMINATOR: self.discriminator, ROI: self.discriminator}

        def weights(self) -> tuple[str, ...]:
            """Those of the stages, the losses and the others."""
            before = () if self.before is None else (self.before,)
            parts = (self.stage, *self.losses, *before, *self.others().values())
            return tuple(dict.fromkeys(name for part in parts for name in part.weights()))

        def notes(self) -> tuple[str, ...]:
            """What is our reading of the losses, and of the others."""
            own = [f"{loss.name}: {LOSSES[loss.name].note}" for loss in self.losses if LOSSES[loss.name].note]
            return (*own, *(note for other in self.others().values() for note in other.notes()))

        def reads(self) -> frozenset[str]:
            """The fields that losses and others are computed from."""
            counted = [loss.reads for loss in self.losses if loss.weight > 0]
            return frozenset[str]().union(*counted, *(other.reads for other in self.others().values()))

        def build_stage(self, store: "WeightStore", target: Target) -> Any:
            """The stage as it is before training, not placed."""
            return self.stage.build(store, target)

        def parts(self, store: "WeightStore", target: Target = FP32) -> dict[str, Any]:
            """Load everything, place it and attach fresh adapters: what a task is made of, by argument.

            Raises:
                ConfigError: if there is nothing to train, or it is not there.
                WeightsError: if a weight is missing, damaged, or does not fit.
            """
            store.require(self.weights())
            stage = self.build_stage(store, target)
            stage.place(target.device, target.dtype, trained=True)
            for index, lora in enumerate(self.adapters):
                lora.attach(stage, self.seed + index)
            for _, module in named(stage, self.whole):
                module.float().requires_grad_(True)
            before = None
            if self.before is not None:
                before = self.before.build(store, target).place(target.device, target.dtype)
            objective = Objective(build_terms(self.losses, store)).to(target.device).requires_grad_(False)
            others = {name: other.build(store, target) for name, other in self.others().items()}
            return {"stage": stage, "config": self, "objective": objective, "before": before, **others}

        def tiny(self) -> Self:
            """Every network at its smallest with random weights."""
            return replace(
                self,
                stage=self.stage.tiny(),
                before=None if self.before is None else self.before.tiny(),
                adapters=tuple(
                    replace(lora, rank=2, alpha=2 * lora.alpha / lora.rank) for lora in self.adapters
                ),
                losses=tuple(loss.tiny() for loss in self.losses),
                **{name: other.tiny() for name, other in self.others().items()},
            )

    def __init__(
        self, *, stage: Any, config: Any, objective: Objective, before: Any = None, **others: Any
    ) -> None:
        super().__init__()
        self.config = config
        self.stage = stage
        self.objective = objective
        self.before = before
        for name, other in others.items():
            self.add_module(name, other)
        self.others: tuple[Other, ...] = tuple(others.values())

    @abstractmethod
    def made_of(self, coarse: Tensor, batch: Batch) -> dict[str, Any]:
        """What the stage makes of its input (B,3,H,W): `image`, not clamped, and more for losses."""

    @abstractmethod
    def facts(self) -> dict[str, str]:
        """What exported files say of themselves."""

    def players(self) -> Mapping[str, nn.Module]:
        """The stage, then the others who train."""
        others: Any = self.others
        return {GENERATOR: self.stage, **{other.player: other for other in others if other.player}}

    def loss(self, player: str, batch: Batch) -> tuple[Tensor, Terms]:
        """The objective and what the others say; then their own losses on the same faces."""
        if player != GENERATOR:
            name, each = next(other for other in self.others if other.player == player).own(batch)
            return mean_of_batch(each), {name: each.detach().mean()}
        fields = self.fields(batch)
        loss, terms = self.objective(fields)
        for other in self.others:
            for name, weight, each in other.say(fields, batch):
                loss = loss + weight * mean_of_batch(each)
                terms[name] = each.detach().mean()
        return loss, terms

    def fields(self, batch: Batch) -> dict[str, Any]:
        """What the stage makes of a batch, and all that losses may read."""
        coarse = self.coarse(batch.lq, batch.seeds) if batch.coarse is None else batch.coarse
        given = {"hq": batch.hq, "lq": batch.lq, "coarse": coarse, "seeds": batch.seeds, **batch.boxes}
        fields = self.made_of(coarse, batch) | given
        tensors = {name: value for name, value in fields.items() if isinstance(value, Tensor)}
        batch.made.update({name: value.detach() for name, value in tensors.items()})
        return fields

    @torch.no_grad()
    def coarse(self, lq: Tensor, seeds: tuple[int, ...]) -> Tensor:
        """What goes into the stage: degraded faces (B,3,H,W), or what the stage before makes of them."""
        if self.before is None:
            return lq
        return self.before(RestorationState.start(lq, seeds)).image

    def restore(self, lq: Tensor, seeds: tuple[int, ...]) -> Tensor:
        """(B,3,H,W) in [0,1] to the same, clamped."""
        return self.stage(RestorationState.start(self.coarse(lq, seeds), seeds)).image

    def export(self, folder: Path, metadata: Mapping[str, str]) -> tuple[Path, ...]:
        """Each adapter as a PEFT folder, those of a pipeline's parts for diffusers too; other parts whole.

        A network that the stage calls `net` is its only one, and its file has the name of the stage: the
        stage's `Config(weight=...)` loads it.
        """
        files: list[Path] = []
        facts = {**self.facts(), **metadata}
        for lora in self.config.adapters:
            adapter = adapter_of(self.stage.get_submodule(lora.net))
            place = export_peft(adapter, folder / lora.net.replace(".", "_"), scale=None, **facts)
            files += sorted(path for path in place.iterdir() if path.is_file())
            if lora.net in PIPELINE_PARTS:
                files.append(export_diffusers(adapter, folder, component=lora.net, scale=None, **facts))
        for name, module in named(self.stage, self.config.whole):
            stem = self.stage.name if name == "net" else name.replace(".", "_")
            files.append(folder / f"{stem}.safetensors")
            write_tensors(files[-1], module.state_dict(), facts)
        return tuple(files)


def named(stage: nn.Module, names: tuple[str, ...]) -> Iterator[tuple[str, nn.Module]]:
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
