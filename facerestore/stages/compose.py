"""Stages made of stages."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

import torch
from torch import nn

from facerestore.core.errors import ConfigError, WiringError
from facerestore.core.precision import DtypeName
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

        def build(self, store: "WeightStore") -> "Chain":
            """Build every stage."""
            return Chain(*(stage.build(store) for stage in self.stages))

        def tiny(self) -> Self:
            """The chain of the tiny stages."""
            return type(self)(stages=tuple(stage.tiny() for stage in self.stages))

    def __init__(self, *stages: Stage) -> None:
        super().__init__()
        self.config = Chain.Config(stages=tuple(stage.config for stage in stages))
        self.stages = nn.ModuleList(stages)

    def place(self, device: torch.device, dtype: DtypeName, batch: int | None = None) -> Self:
        """Move every stage."""
        for stage in self._members():
            stage.place(device, dtype, batch)
        return self

    def forward(self, state: RestorationState) -> RestorationState:
        """Run the stages in order."""
        for stage in self._members():
            state = stage(state).keep(stage.name)
        return state

    def _members(self) -> list[Stage]:
        return cast("list[Stage]", list(self.stages))  # ModuleList forgets what it holds
