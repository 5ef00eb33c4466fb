"""Stages made of stages, and stages that are built only while they run."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

import torch
from torch import nn

from facerestore.core.errors import ConfigError, WiringError
from facerestore.core.offload import Need, Offload
from facerestore.core.precision import FP32, DtypeName, Target
from facerestore.core.state import RestorationState
from facerestore.stages.base import Stage, StageConfig, StageContract

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore


def wire(contracts: list[tuple[str, StageContract]]) -> StageContract:
    """Check that every stage finds what it reads, and return the contract of the whole.

    Args:
        contracts: (name, contract) of the stages in order.

    Raises:
        WiringError: if a stage reads what neither the input nor a stage before it provides.
    """
    there = {"lq", "image"}
    for index, (name, contract) in enumerate(contracts):
        lacking = sorted(contract.reads - there)
        if lacking:
            raise WiringError(
                f"stage {index} ({name}) reads {lacking}, but what lies before it provides {sorted(there)}"
            )
        there |= contract.writes
    return StageContract(
        reads=frozenset({"lq", "image"}),
        writes=frozenset(there - {"lq"}),
        generative=any(contract.generative for _, contract in contracts),
        differentiable=all(contract.differentiable for _, contract in contracts),
    )


class Chain(Stage):
    """Run stages one after another and keep a snapshot after each, under `kept[stage.name]`."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(StageConfig):
        """Settings: the stages in order; wiring is checked at once."""

        stages: tuple[StageConfig, ...]

        def __post_init__(self) -> None:
            if not self.stages:
                raise ConfigError("a Chain needs at least one stage")
            self.contract()

        def contract(self) -> StageContract:
            """What the whole chain reads and writes."""
            return wire(
                [
                    (type(stage).__qualname__.removesuffix(".Config"), stage.contract())
                    for stage in self.stages
                ]
            )

        def weights(self) -> tuple[str, ...]:
            """Every weight of every stage, once."""
            return tuple(dict.fromkeys(name for stage in self.stages for name in stage.weights()))

        def build(self, store: "WeightStore", target: Target = FP32) -> "Chain":
            """Build every stage."""
            return Chain(*(stage.build(store, target) for stage in self.stages))

        def needs(self, store: "WeightStore", target: Target) -> tuple[Need, ...]:
            """Those of every stage, in order."""
            return tuple(need for stage in self.stages for need in stage.needs(store, target))

        def tiny(self) -> Self:
            """The chain of the tiny stages."""
            return type(self)(stages=tuple(stage.tiny() for stage in self.stages))

    def __init__(self, *stages: Stage) -> None:
        super().__init__()
        self.config = Chain.Config(stages=tuple(stage.config for stage in stages))
        self.stages = nn.ModuleList(stages)

    def place(
        self,
        device: torch.device,
        dtype: DtypeName,
        batch: int | None = None,
        offload: Offload = "none",
        *,
        compiled: bool = False,
    ) -> Self:
        """Place every stage."""
        for stage in self._members():
            stage.place(device, dtype, batch, offload, compiled=compiled)
        return self

    def forward(self, state: RestorationState) -> RestorationState:
        """Run the stages in order."""
        for stage in self._members():
            state = stage(state).keep(stage.name)
        return state

    def _members(self) -> list[Stage]:
        return cast("list[Stage]", list(self.stages))  # ModuleList forgets what it holds


class OnDemand(Stage):
    """A stage that is built from its files when it runs, and released afterwards: how a CPU offloads.

    Weights that are stored as they run are mapped from the file again; others are converted again.

    Args:
        config: of the stage.
        make: builds it and places it.
    """

    def __init__(self, config: StageConfig, make: Callable[[StageConfig], Stage]) -> None:
        super().__init__()
        self.config = config
        self.make = make
        self.built: Stage | None = None

    @property
    def name(self) -> str:
        """That of the stage."""
        return type(self.config).__module__.rsplit(".", 1)[-1]

    def forward(self, state: RestorationState) -> RestorationState:
        """Build what is not yet built, run it, and let it go."""
        stage, self.built = self.built or self.build(), None
        return stage(state)

    def build(self) -> Stage:
        """Build the stage and keep it for its next turn, once what was let go has left the memory."""
        gc.collect()  # a network may lie in a cycle of references
        self.built = self.make(self.config)
        return self.built


def on_demand(config: StageConfig, make: Callable[[StageConfig], Stage]) -> Stage:
    """The stage of a configuration, its members with weights there only while they run.

    All of them are built once, one after the other, so that a file that does not fit is found at once; the
    one that runs first is kept for its turn.

    Args:
        config: a single stage's, or a chain's.
        make: builds a stage and places it.
    """
    members = config.stages if isinstance(config, Chain.Config) else (config,)
    stages: list[Stage] = []
    for member in reversed(members):
        if not member.weights():
            stages.append(make(member))
            continue
        for later in stages:
            if isinstance(later, OnDemand):
                later.built = None
        stage = OnDemand(member, make)
        stage.build()
        stages.append(stage)
    return Chain(*reversed(stages)) if isinstance(config, Chain.Config) else stages[0]
