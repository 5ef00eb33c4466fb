"""Blur kernels: Gaussian, generalised Gaussian, plateau and sinc, one for each picture of a batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from facerestore.core.config import Config
from facerestore.core.errors import ConfigError
from facerestore.degradations.choices import Range, chance, check_probability, check_range, choice, uniform

Shape = Literal[
    "iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso", "sinc"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel(Config):
    """One blur kernel, as the numbers that it is made from.

    Attributes:
        shape: as BasicSR calls it; `sinc` is a circular low-pass filter.
        size: side, px, odd.
        sigma_x: width along the first axis, px; unused by `sinc`.
        sigma_y: width along the second axis, px.
        theta: angle of the first axis, radians.
        beta: exponent of the generalised and the plateau shapes; 1 makes a Gaussian of the former.
        cutoff: of `sinc`, radians a pixel, at most pi.
    """

    shape: Shape
    size: int
    sigma_x: float = 1.0
    sigma_y: float = 1.0
    theta: float = 0.0
    beta: float = 1.0
    cutoff: float = math.pi

    def __post_init__(self) -> None:
        if self.size < 1 or self.size % 2 == 0:
            raise ConfigError(f"a kernel has an odd size of at least 1 px, not {self.size}")
        if not (self.sigma_x > 0 and self.sigma_y > 0 and self.beta > 0 and self.cutoff > 0):
            raise ConfigError(f"the widths, the exponent and the cut-off of a kernel are above 0: {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRange(Config):
    """What a kernel is drawn from.

    Attributes:
        sizes: sides, px, each equally likely.
        shapes: all but `sinc`.
        weights: of the shapes.
        sigma: both widths, px.
        beta_generalized: exponent of the generalised shapes: half of them lie below 1, half above.
        beta_plateau: exponent of the plateau shapes, drawn in the same way.
        sinc_probability: of a sinc filter in place of a shape.
        sinc_large_px: from this size on, a sinc filter may cut as low as pi/5, below it pi/3.
    """

    sizes: tuple[int, ...]
    shapes: tuple[Shape, ...] = ("iso", "aniso")
    weights: tuple[float, ...] = (0.5, 0.5)
    sigma: Range
    beta_generalized: Range = (0.5, 8.0)
    beta_plateau: Range = (0.5, 8.0)
    sinc_probability: float = 0.0
    sinc_large_px: int = 13

    def __post_init__(self) -> None:
        if not self.sizes or any(size < 1 or size % 2 == 0 for size in self.sizes):
            raise ConfigError(f"sizes of a kernel are odd and at least 1 px, not {self.sizes}")
        if len(self.shapes) != len(self.weights) or not sum(self.weights) > 0:
            raise ConfigError(
                f"a kernel needs a weight for each of its {len(self.shapes)} shapes, got {self.weights}"
            )
        check_range("sigma", self.sigma, 1e-3)
        check_range("beta_generalized", self.beta_generalized, 1e-3)
        check_range("beta_plateau", self.beta_plateau, 1e-3)
        check_probability("sinc_probability", self.sinc_probability)

    def draw(self, generator: torch.Generator) -> Kernel:
        """Draw one kernel."""
        size = choice(generator, self.sizes)
        if chance(generator, self.sinc_probability):
            lowest = math.pi / (3 if size < self.sinc_large_px else 5)
            return Kernel(shape="sinc", size=size, cutoff=uniform(generator, (lowest, math.pi)))
        shape = choice(generator, self.shapes, self.weights)
        sigma_x = uniform(generator, self.sigma)
        sigma_y, theta, beta = sigma_x, 0.0, 1.0
        if shape.endswith("aniso"):
            sigma_y = uniform(generator, self.sigma)
            theta = uniform(generator, (-math.pi, math.pi))
        if shape.startswith(("generalized", "plateau")):
            low, high = self.beta_generalized if shape.startswith("generalized") else self.beta_plateau
            beta = uniform(generator, (low, 1.0) if chance(generator, 0.5) else (1.0, high))
        return Kernel(shape=shape, size=size, sigma_x=sigma_x, sigma_y=sigma_y, theta=theta, beta=beta)


def blur_kernels(kernels: Sequence[Kernel], size: int | None = None) -> torch.Tensor:
    """Compute kernels, each with the sum 1 and zeros around it up to the common size.

    With q the squared distance from the centre in units of the two widths, along axes turned by theta: a
    Gaussian is exp(-q/2), a generalised one exp(-q^beta/2), a plateau 1/(1+q^beta). With r the distance in
    pixels and w the cut-off, a sinc filter is w J1(w r) / (2 pi r). The same as BasicSR's
    `random_mixed_kernels` and `circular_lowpass_kernel` for equal numbers.

    Args:
        kernels: one for each picture.
        size: side of the result, px, odd and at least that of the largest; the largest if None.

    Returns:
        (B,size,size) float32 on the CPU, computed in float64.
    """

    def of_each(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)

    side = size or max(kernel.size for kernel in kernels)
    axis = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    x, y = axis.view(1, 1, -1), axis.view(1, -1, 1)
    theta = of_each([kernel.theta for kernel in kernels])
    along = (theta.cos() * x + theta.sin() * y) / of_each([kernel.sigma_x for kernel in kernels])
    across = (theta.cos() * y - theta.sin() * x) / of_each([kernel.sigma_y for kernel in kernels])
    q = (along.square() + across.square()).pow(of_each([kernel.beta for kernel in kernels]))
    plateau = of_each([kernel.shape.startswith("plateau") for kernel in kernels]).bool()
    values = torch.where(plateau, 1 / (1 + q), torch.exp(-q / 2))
    sinc = of_each([kernel.shape == "sinc" for kernel in kernels]).bool()
    if sinc.any():
        cutoff = of_each([kernel.cutoff for kernel in kernels])
        r = (x.square() + y.square()).sqrt()
        ring = cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r)
        values = torch.where(sinc, torch.where(r == 0, cutoff.square() / (4 * math.pi), ring), values)
    reach = of_each([(kernel.size - 1) / 2 for kernel in kernels])
    values = torch.where((x.abs() <= reach) & (y.abs() <= reach), values, 0.0)
    return (values / values.sum((1, 2), keepdim=True)).float()
