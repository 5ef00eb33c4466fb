"""Noise schedules as plain numbers; no scheduler object is needed for a single step."""

import math

import torch

from facerestore.core.errors import ConfigError

_FLUX_STEPS = 999
_FLUX_MU = 1.15  # FLUX.1's shift for 4096 image tokens, which OMGSR-F uses at every size
_TRAIN_STEPS = 1000


def sd_alpha_bar() -> torch.Tensor:
    """Cumulative signal variances of Stable Diffusion 1, 2 and XL: (1000,) float32, falling from 0.9991.

    The scaled-linear schedule (beta 0.00085 to 0.012), computed in float32 in the order of diffusers, so
    that it equals `DDIMScheduler.alphas_cumprod` bit for bit; float64 differs by up to 3e-7.
    """
    roots = torch.linspace(0.00085**0.5, 0.012**0.5, _TRAIN_STEPS, dtype=torch.float32)
    return torch.cumprod(1 - roots**2, dim=0)


def shift_sigma(sigma: float, shift: float) -> float:
    """Move a flow-matching noise level: `shift * sigma / (1 + (shift - 1) * sigma)`; 0 and 1 stay.

    Args:
        sigma: share of noise in [0,1], z = (1 - sigma) * clean + sigma * noise.
        shift: above 1 towards more noise; the exponential shift of FLUX is `shift = exp(mu)`.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)


def flux_sigma(index: int) -> float:
    """Noise level of a mid-timestep index of OMGSR-F: 244 is 0.505112, 295 is 0.569595.

    Raises:
        ConfigError: if the index is not in 0 to 999.
    """
    if not 0 <= index <= _FLUX_STEPS:
        raise ConfigError(f"a FLUX index lies in 0 to {_FLUX_STEPS}, got {index}")
    return shift_sigma(index / _FLUX_STEPS, math.exp(_FLUX_MU))


def zimage_sigma(timestep: float) -> float:
    """Noise level of a Z-Image timestep, which is never shifted: 244 is 0.244.

    Raises:
        ConfigError: if the timestep is not in 0 to 1000.
    """
    if not 0 <= timestep <= _TRAIN_STEPS:
        raise ConfigError(f"a Z-Image timestep lies in 0 to {_TRAIN_STEPS}, got {timestep}")
    return timestep / _TRAIN_STEPS
