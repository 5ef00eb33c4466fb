"""Numbers drawn from the generator of one picture, on the CPU, so that they are the same on every device."""

from collections.abc import Sequence
from typing import TypeVar

import torch

T = TypeVar("T")
Range = tuple[float, float]


def uniform(generator: torch.Generator, bounds: Range) -> float:
    """A number between the two bounds."""
    low, high = bounds
    return low + (high - low) * torch.rand((), generator=generator, dtype=torch.float64).item()


def chance(generator: torch.Generator, probability: float) -> bool:
    """True with this probability."""
    return uniform(generator, (0.0, 1.0)) < probability


def choice(generator: torch.Generator, options: Sequence[T], weights: Sequence[float] | None = None) -> T:
    """One of the options, with probabilities proportional to the weights, or equal ones."""
    shares = torch.tensor(weights or [1.0] * len(options), dtype=torch.float64)
    return options[int(torch.multinomial(shares, 1, generator=generator))]
