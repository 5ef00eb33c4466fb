"""How one player's parameters move: the optimiser, its learning rate over time, and clipping."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from facerestore.core.config import Config
from facerestore.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer(Config):
    """Settings of one player's optimiser.

    Raises:
        ConfigError: if a number is out of range.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    """AdamW decays weights apart from the gradient; SGD is plain, without momentum."""
    learning_rate: float = 1e-4
    """At its highest, after warming up."""
    betas: tuple[float, ...] = (0.9, 0.999)
    """Of the two running means of Adam."""
    weight_decay: float = 0.0
    """Per step, in units of the learning rate."""
    eps: float = 1e-8
    """Added to the root of Adam's second mean."""
    clip_norm: float | None = 1.0
    """Gradients of the player longer than this, together, are shortened to it; None leaves them."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """How the rate falls after warming up."""
    warmup_steps: int = 0
    """In which it rises in a straight line from nearly nothing."""
    last_share: float = 0.0
    """Of the rate, at the last step of `cosine` and `linear`."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0 or self.eps <= 0 or self.weight_decay < 0 or self.warmup_steps < 0:
            raise ConfigError(f"learning_rate and eps lie above 0, decay and warm-up not below, got {self}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"betas are two numbers in [0,1), got {self.betas}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ConfigError(f"clip_norm lies above 0, or is none, got {self.clip_norm}")

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """An optimiser of these parameters."""
        owned = list(parameters)
        if self.name == "sgd":
            return torch.optim.SGD(owned, lr=self.learning_rate, weight_decay=self.weight_decay)
        kind = torch.optim.AdamW if self.name == "adamw" else torch.optim.Adam
        betas = (self.betas[0], self.betas[1])
        return kind(owned, self.learning_rate, betas, self.eps, self.weight_decay)

    def rate(self, step: int, max_steps: int) -> float:
        """The learning rate of a step.

        Args:
            step: from 0.
            max_steps: of the whole training, at which `cosine` and `linear` have arrived.
        """
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.schedule == "constant":
            return self.learning_rate
        done = (step - self.warmup_steps) / max(1, max_steps - 1 - self.warmup_steps)
        left = 1 - done if self.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return self.learning_rate * (self.last_share + (1 - self.last_share) * max(0.0, left))
