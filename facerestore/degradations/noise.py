"""Gaussian and Poisson noise, with a strength and a generator of its own for each picture.

What is drawn is drawn on the CPU, as normal deviates, and moved: the same numbers on every device, at the
price of some 4 ns a value on the CPU. No picture is ever moved.
"""

from collections.abc import Sequence

import torch

from facerestore.core.errors import ShapeError
from facerestore.imaging.color_fix import luma

_SMALL_RATE = 4.0
_MOST_AT_SMALL_RATE = 20  # a count that rates below 4 exceed with a probability of 1e-9


def gaussian_noise(
    images: torch.Tensor,
    sigma: Sequence[float],
    grey: Sequence[bool],
    generators: Sequence[torch.Generator],
) -> torch.Tensor:
    """Independent normal noise.

    Args:
        images: (B,3,H,W); only their size counts.
        sigma: standard deviation of each picture, in 8-bit code values.
        grey: whether its three channels get the same noise.
        generators: of each picture, on the CPU.

    Returns:
        (B,3,H,W) to be added, not clamped.

    Raises:
        ShapeError: if there is not one value for each picture.
    """
    _check(images, sigma, grey, generators)
    return _normals(images, grey, generators) * (_of_each(sigma, images) / 255)


def poisson_noise(
    images: torch.Tensor,
    scale: Sequence[float],
    grey: Sequence[bool],
    generators: Sequence[torch.Generator],
) -> torch.Tensor:
    """Noise of counted photons, as BasicSR's `generate_poisson_noise_pt` makes it.

    The picture is rounded to 8 bits; white stands for as many photons as there are different values in it,
    rounded up to a power of two. Each pixel gets what a Poisson variable lies off its mean, times the scale.

    Args:
        images: (B,3,H,W) in [0,1].
        scale: strength for each picture; 1 is the noise of counting.
        grey: whether the noise of its luma goes into all three channels.
        generators: of each picture, on the CPU.

    Returns:
        (B,3,H,W) to be added, not clamped.

    Raises:
        ShapeError: if there is not one value for each picture.
    """
    _check(images, scale, grey, generators)
    seen = torch.where(_of_each(grey, images).bool(), luma(images), images) if any(grey) else images
    levels = seen.mul(255).round_().clamp_(0, 255)
    different = [torch.bincount(level.flatten().byte()).count_nonzero() for level in levels]
    white = torch.exp2(torch.stack(different).log2().ceil()).to(images).view(-1, 1, 1, 1)
    rates = levels.mul_(white / 255)
    counts = poisson_counts(rates, _normals(images, grey, generators))
    return counts.sub_(rates).mul_(_of_each(scale, images) / white)


def poisson_counts(rates: torch.Tensor, normals: torch.Tensor) -> torch.Tensor:
    """Turn normal deviates into Poisson variables: the count that has the same cumulative probability.

    A function of the deviates, and thus the same on every device, which `torch.poisson` is not. Below a rate
    of 4 the cumulative probabilities are summed; above, the expansion of the inverse in powers of
    1/sqrt(rate) is used (M. B. Giles, ACM TOMS 42(1), 2016), off by at most 4e-4 in cumulative probability,
    from a rate of 32 on by 4e-6.

    Args:
        rates: at least 0, any shape.
        normals: of the same shape.

    Returns:
        Whole numbers as floats, of the same shape.
    """
    small_root = rates.clamp(min=_SMALL_RATE).rsqrt_()
    squared = normals.square()
    second = (3 * squared).add_(7).mul_(squared).sub_(16).mul_(small_root).div_(810)
    first = (squared + 2).mul_(normals).div_(72)
    counts = torch.addcdiv(rates, normals, small_root).add_(squared, alpha=1 / 6).add_(1 / 3)
    counts.addcmul_(second.sub_(first), small_root).floor_()
    small = rates < _SMALL_RATE
    few = rates[small]
    if few.numel():
        counts[small] = _summed(few, torch.special.ndtr(normals[small]))
    return counts


def _summed(rates: torch.Tensor, probabilities: torch.Tensor) -> torch.Tensor:
    term = torch.exp(-rates)
    total = term.clone()
    counts = torch.zeros_like(rates)
    for count in range(1, _MOST_AT_SMALL_RATE + 1):
        counts += probabilities > total
        total += term.mul_(rates).div_(count)
    return counts


def _check(images: torch.Tensor, *of_each: Sequence[object]) -> None:
    for values in of_each:
        if len(values) != len(images):
            raise ShapeError(f"{len(images)} values, one for each picture", (len(values),))


def _of_each(values: Sequence[float], images: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=images.dtype).to(images.device).view(-1, 1, 1, 1)


def _normals(
    images: torch.Tensor, grey: Sequence[bool], generators: Sequence[torch.Generator]
) -> torch.Tensor:
    size = images.shape[2:]
    drawn = [
        torch.randn(1 if is_grey else 3, *size, generator=generator).expand(3, -1, -1)
        for is_grey, generator in zip(grey, generators, strict=True)
    ]
    return (drawn[0][None] if len(drawn) == 1 else torch.stack(drawn)).to(images)
