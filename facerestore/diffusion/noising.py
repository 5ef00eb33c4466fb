"""Noise put onto clean latents, by the rule of Stable Diffusion and by that of flow matching.

Latents are (B,C,h,w) after scaling. A level is a number, or one for each latent (B,). What comes out is
float32 or wider: in bf16 a little noise would be none.
"""

import torch
from torch import Tensor

from facerestore.core.errors import ShapeError
from facerestore.diffusion.schedule import sd_alpha_bar

AlphaBar = float | Tensor
"""Share of signal in the variance; of `schedule.sd_alpha_bar` at a timestep."""
Sigma = float | Tensor
"""Share of noise in [0,1]."""


def alpha_bar_at(timesteps: Tensor) -> Tensor:
    """Stable Diffusion's share of signal in the variance at each timestep.

    Args:
        timesteps: (B,) whole numbers in 0 to 999.

    Returns:
        (B,) float32, on their device.

    Raises:
        ShapeError: if they are not whole, or not (B,).
    """
    if timesteps.ndim != 1 or timesteps.dtype.is_floating_point:
        raise ShapeError(f"whole timesteps (B,), no {timesteps.dtype}", timesteps.shape)
    return sd_alpha_bar().to(timesteps.device)[timesteps]


def noised(clean: Tensor, noise: Tensor, alpha_bar: AlphaBar) -> Tensor:
    """Stable Diffusion's: sqrt(a) clean + sqrt(1 - a) noise.

    Raises:
        ShapeError: if the shapes differ, or the levels are not one or (B,).
    """
    alpha = _level(alpha_bar, clean, noise)
    return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise


def noised_flow(clean: Tensor, noise: Tensor, sigma: Sigma) -> Tensor:
    """Flow matching's: (1 - s) clean + s noise.

    Raises:
        ShapeError: if the shapes differ, or the levels are not one or (B,).
    """
    share = _level(sigma, clean, noise)
    return (1 - share) * clean + share * noise


def _level(level: float | Tensor, clean: Tensor, noise: Tensor) -> Tensor:
    if clean.shape != noise.shape or clean.ndim != 4:
        raise ShapeError(f"noise of the shape of the latents {tuple(clean.shape)}", noise.shape)
    wide = torch.promote_types(clean.dtype, torch.float32)
    level = torch.as_tensor(level, dtype=wide, device=clean.device)
    if level.shape not in ((), (len(clean),)):
        raise ShapeError(f"one level, or one for each of {len(clean)} latents", level.shape)
    return level.view(-1, 1, 1, 1)
