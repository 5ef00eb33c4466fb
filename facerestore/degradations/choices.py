"""Numbers drawn from the generator of one picture, on the CPU, so that they are the same on every device."""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch

from facerestore.core.errors import ConfigError

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


def check_range(name: str, bounds: Range | None, least: float, most: float = math.inf) -> None:
    """Refuse what is no range inside `least` to `most`; None is none, and allowed.

    Raises:
        ConfigError: naming the field.
    """
    if bounds is not None and (len(bounds) != 2 or not least <= bounds[0] <= bounds[1] <= most):
        raise ConfigError(f"{name} is (lowest, highest) within {least:g} to {most:g}, not {bounds}")


def check_probability(name: str, *values: float) -> None:
    """Refuse what is no probability.

    Raises:
        ConfigError: naming the field.
    """
    if not all(0 <= value <= 1 for value in values):
        raise ConfigError(f"{name} lies within 0 to 1, not {', '.join(map(str, values))}")
