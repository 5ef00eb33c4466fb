"""What a training step minimises: losses bound to named tensors, averaged over the batch, weighted, added."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from facerestore.core.errors import ConfigError, ShapeError, TrainingDiverged, WiringError


@dataclass(frozen=True, slots=True)
class Term:
    """One loss, what it is computed from, and what it counts.

    Attributes:
        name: of the term, in logs and in errors.
        loss: any callable that returns (B,).
        weight: what its batch mean is multiplied by, >= 0; a term of weight 0 is not computed.
        pred: the field that is its first argument.
        target: the field that is its second; None for a loss of one argument, such as a generator's.
        others: the fields that are its further arguments, such as a timestep.

    Raises:
        ConfigError: if the name is empty or the weight is no number >= 0.
    """

    name: str
    loss: Callable[..., Tensor]
    weight: float = 1.0
    pred: str = "image"
    target: str | None = "hq"
    others: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("a term needs a name")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ConfigError(f"the term {self.name!r} needs a weight >= 0, got {self.weight}")

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields that are its arguments, in this order."""
        return (self.pred, *(() if self.target is None else (self.target,)), *self.others)


class Objective(nn.Module):
    """The weighted sum of the batch means of its terms.

    The networks of its losses move with it from device to device, and stay in the mode that they were built
    in: `train` reaches none of them.

    Args:
        terms: in the order in which they are computed.

    Raises:
        ConfigError: if two terms have one name, or none has a weight.
    """

    def __init__(self, terms: Sequence[Term]) -> None:
        super().__init__()
        names = [term.name for term in terms]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"two terms are named {twice[0]!r}")
        self.terms = tuple(term for term in terms if term.weight > 0)
        if not self.terms:
            raise ConfigError("an objective needs a term with a weight above 0")
        networks = (term.loss for term in self.terms)
        self.losses = nn.ModuleList(loss for loss in networks if isinstance(loss, nn.Module))

    def train(self, mode: bool = True) -> Self:
        """Set its own mode and leave those of the networks, which are to describe and not to learn."""
        self.training = mode
        return self

    @property
    def reads(self) -> frozenset[str]:
        """Every field that a term is computed from."""
        return frozenset(name for term in self.terms for name in term.reads)

    def forward(self, fields: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute every term.

        Args:
            fields: what the step predicted and what it was given, by name.

        Returns:
            The sum (), which can be differentiated, and the mean of each term, unweighted, (), which cannot.

        Raises:
            ShapeError: if a loss does not return (B,).
            TrainingDiverged: if the mean of a term is not finite; names the first one.
            WiringError: if a field is missing.
        """
        means = [self._mean(term, fields) for term in self.terms]
        values = torch.stack([mean.detach().float() for mean in means])
        if not values.isfinite().all():  # one look at the device for all of them
            raise TrainingDiverged(self.terms[int(values.isfinite().int().argmin())].name)
        total = torch.stack([term.weight * mean for term, mean in zip(self.terms, means, strict=True)]).sum()
        return total, {term.name: value for term, value in zip(self.terms, values, strict=True)}

    @staticmethod
    def _mean(term: Term, fields: Mapping[str, Any]) -> Tensor:
        missing = [name for name in term.reads if name not in fields]
        if missing:
            raise WiringError(
                f"the term {term.name!r} reads {missing[0]!r}, and there is only {', '.join(sorted(fields))}"
            )
        loss = term.loss(*(fields[name] for name in term.reads))
        if loss.ndim != 1:
            raise ShapeError(
                f"one number per picture (B,) from the loss of the term {term.name!r}", loss.shape
            )
        return loss.mean()
