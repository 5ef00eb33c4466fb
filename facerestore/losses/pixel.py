"""Losses between values at one place: pictures, latents, whatever has a batch."""

import torch
from torch import Tensor

from facerestore.core.errors import ConfigError, ShapeError
from facerestore.imaging.blur import gaussian_blur
from facerestore.imaging.pairs import pair

CHARBONNIER_EPS = 1e-3


def l1(pred: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference.

    Args:
        pred: (B,...), any range.
        target: the same shape.

    Returns:
        (B,) float32.

    Raises:
        ShapeError: if the shapes differ.
    """
    pred, target = pair(pred, target)
    return (pred - target).abs().flatten(1).mean(1)


def mse(pred: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference.

    Published weights are often for pictures in [-1,1], where it is four times that of [0,1].

    Args:
        pred: (B,...), any range.
        target: the same shape.

    Returns:
        (B,) float32.

    Raises:
        ShapeError: if the shapes differ.
    """
    pred, target = pair(pred, target)
    return (pred - target).square().flatten(1).mean(1)


def lp(pred: Tensor, target: Tensor, p: float) -> Tensor:
    """Mean of the absolute difference to the power of p: `l1` at 1, `mse` at 2, anything between.

    Args:
        pred: (B,...), any range.
        target: the same shape.
        p: >= 1.

    Returns:
        (B,) float32.

    Raises:
        ConfigError: if p is below 1.
        ShapeError: if the shapes differ.

    Reference:
        MiPlusCV, NTIRE 2026, arXiv:2604.10532, names an l_p fidelity; its p cannot be read there.
    """
    if not p >= 1:
        raise ConfigError(f"an l_p loss needs a p of at least 1, got {p}")
    pred, target = pair(pred, target)
    return (pred - target).abs().pow(p).flatten(1).mean(1)


def charbonnier(pred: Tensor, target: Tensor, eps: float = CHARBONNIER_EPS) -> Tensor:
    """Mean of sqrt(d^2 + eps^2) - eps: a parabola below differences of eps, `l1` above them.

    Args:
        pred: (B,...), any range.
        target: the same shape.
        eps: in the units of the values, > 0.

    Returns:
        (B,) float32, 0 where both are equal.

    Raises:
        ShapeError: if the shapes differ.

    Reference:
        Lai et al., 2017, arXiv:1704.03915 (LapSRN), section 3.3, whose eps this is, shifted down by its
        constant eps: the gradient is the same. BasicSR's is the square root of d^2 + 1e-12, that is eps 1e-6,
        not shifted.
    """
    pred, target = pair(pred, target)
    return (((pred - target).square() + eps**2).sqrt() - eps).flatten(1).mean(1)


def blurred_mse(pred: Tensor, target: Tensor, timesteps: Tensor) -> Tensor:
    """Mean squared difference of blurred pictures: the later the timestep, the more detail is free.

    The kernel has 5 + 4 floor(t / 200) px, the Gaussian in it a width of 1 + t / 200 px.

    Args:
        pred: (B,C,H,W), any range, sides above 10 px.
        target: the same shape.
        timesteps: (B,), 0 to 999.

    Returns:
        (B,) float32; 0 where both are equal once they are blurred.

    Raises:
        ShapeError: if the shapes differ, or the pictures are too small.

    Reference:
        Zhang et al., 2025, arXiv:2508.16557 (TADSR); `train_tadsr.py` of github zty557/TADSR at b0eaa30,
        there on pictures in [-1,1], where it is four times as large.
    Parity:
        That script's blur, which is torchvision's `GaussianBlur` on each picture: 1e-6 abs in float32, live.
        Deviations: the difference is blurred, in place of both pictures.
    """
    pred, target = pair(pred, target)
    if timesteps.shape != pred.shape[:1]:
        raise ShapeError(f"a timestep for each of {len(pred)} pictures (B,)", timesteps.shape)
    size = 5 + 4 * torch.div(timesteps, 200, rounding_mode="floor")
    return gaussian_blur(pred - target, 1 + timesteps / 200, size).square().flatten(1).mean(1)
