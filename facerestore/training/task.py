"""What is trained: players, each with a loss of its own, and the picture that comes of it."""

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from facerestore.core.config import Config
from facerestore.core.precision import FP32, Target
from facerestore.training.optimizer import Optimizer

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The samples of one pass, all on the device of the task.

    Attributes:
        hq: sharp faces (B,3,H,W) float32 in [0,1].
        lq: the same degraded; None where the task reads none.
        seeds: one per sample, from which every draw for it follows.
        keys: their names.
        step: of the training, from 0.
        coarse: what a stage before made of `lq`, where it was computed once for all steps.
        moments: posteriors of `hq` and of what goes into the stage, as "z_hq" and "z_lq", likewise; see
            `LatentCodec.moments`.
        boxes: of "left_eye", "right_eye" and "mouth" (B,4), left, top, right, bottom in pixels.
        made: what one player computed and the next may use; empty at first.
    """

    hq: Tensor
    lq: Tensor
    seeds: tuple[int, ...]
    keys: tuple[str, ...] = ()
    step: int = 0
    coarse: Tensor | None = None
    moments: Mapping[str, Tensor] = field(default_factory=dict)
    boxes: Mapping[str, Tensor] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)


GENERATOR, DISCRIMINATOR = "generator", "discriminator"
"""Names of players; every task has the first."""
Terms = dict[str, Tensor]
"""The parts of a loss by name, 0-d, for the log."""


class Task(nn.Module, ABC):
    """Abstract: players and their losses. Everything random in it follows from the seeds of the batch."""

    @abstractmethod
    def players(self) -> Mapping[str, nn.Module]:
        """Who trains, in the order of their turns, the generator first: what is trainable below each."""

    @abstractmethod
    def loss(self, player: str, batch: Batch) -> tuple[Tensor, Terms]:
        """The loss of a player, 0-d, and its parts.

        Called in the order of `players` with one `batch`, in whose `made` a later player finds what an
        earlier one computed. Only the player's own parameters are trainable meanwhile.
        """

    @abstractmethod
    def restore(self, lq: Tensor, seeds: tuple[int, ...]) -> Tensor:
        """What the generator makes of faces (B,3,H,W) in [0,1], for validation: the same, clamped."""

    @abstractmethod
    def export(self, folder: Path, metadata: Mapping[str, str]) -> tuple[Path, ...]:
        """Write what was trained, as `fr.load` and the packages of the field load it; returns the files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConfig(Config):
    """Settings of a task; knows which weights it needs and how to build it."""

    def optimizers(self) -> Mapping[str, Optimizer]:
        """One for each player."""
        raise TypeError(f"{type(self).__qualname__} must say how its players are optimised")

    def weights(self) -> tuple[str, ...]:
        """Names of the weights it needs, as the manifest spells them."""
        return ()

    def notes(self) -> tuple[str, ...]:
        """What a reader of the model card should know: what was not published as it is done here."""
        return ()

    def reads(self) -> frozenset[str]:
        """The fields that its losses are computed from, as far as its data may lack them."""
        return frozenset()

    def build(self, store: "WeightStore", target: Target = FP32) -> Task:
        """Build it on the target's device; what is frozen lies there in the target's dtype.

        Raises:
            WeightsError: if a weight is missing, damaged, or does not fit.
        """
        raise TypeError(f"{type(self).__qualname__} must say how it is built")

    def tiny(self) -> "TaskConfig":
        """The same at a size for tests, without weights."""
        raise TypeError(f"{type(self).__qualname__} must say how it is made small")


def trainable(net: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that a player moves, by name, in a fixed order."""
    return {name: value for name, value in net.named_parameters() if value.requires_grad}


@contextmanager
def only(player: str, players: Mapping[str, Mapping[str, nn.Parameter]]) -> Generator[None]:
    """Freeze every parameter of the other players, so that no gradient can reach them.

    Gradients pass through them all the same, to what the player has made.

    Args:
        player: whose turn it is.
        players: the parameters that each moves.
    """
    others = [value for name, owned in players.items() if name != player for value in owned.values()]
    for value in others:
        value.requires_grad_(False)
    try:
        yield
    finally:
        for value in others:
            value.requires_grad_(True)


def mean_of_batch(values: Tensor) -> Tensor:
    """The mean of one loss per sample (B,), 0-d."""
    return torch.mean(values.float())
