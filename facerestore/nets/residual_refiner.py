"""BVI's residual noise refiner: a small network that corrects what a one-step diffusion model predicted."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError

_GROUPS = 8
_PERIOD = 10000.0


def timestep_code(timesteps: torch.Tensor, width: int) -> torch.Tensor:
    """Sinusoids of timesteps (B,) as (B,width) float32: all cosines first, then all sines.

    The frequencies fall from 1 to nearly 1/10000. TADSR's encoder and BVI's refiner share it.

    Args:
        timesteps: of any numeric dtype.
        width: even.
    """
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
    angles = timesteps.float()[:, None] * torch.exp(-math.log(_PERIOD) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class ResidualRefiner(nn.Module):
    """Looks at the latent and at the prediction made from it, and returns what to add to the prediction.

    A new one returns zeros, so that it leaves the model that it is put behind as it was, bit for bit.

    Reference:
        BVI, NTIRE 2026; `ResidualNoiseRefiner` in GitHub zhengchen1999/NTIRE2026_ImageSR_x4, team 28. The
        key names are theirs.
    Parity:
        Their class on the same weights, 1e-6 abs in float32.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Sizes; the defaults are those of the published code, 163,524 parameters.

        Raises:
            ConfigError: if there are no channels, or the width is no multiple of 8.
        """

        channels: int = 4
        """Of the latent: 4 for Stable Diffusion, 16 for FLUX and Z-Image."""
        hidden: int = 64
        """Width inside, a multiple of 8, and of the code of the timestep."""
        out_scale: float = 0.05
        """What the correction is multiplied by."""

        def __post_init__(self) -> None:
            if self.channels < 1 or self.hidden < _GROUPS or self.hidden % _GROUPS:
                raise ConfigError(
                    f"a refiner needs channels and a width in steps of {_GROUPS}, got {self.channels} "
                    f"channels and a width of {self.hidden}"
                )

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        channels, hidden = config.channels, config.hidden
        self.in_proj = nn.Conv2d(2 * channels, hidden, 3, padding=1)
        self.time_mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden))
        self.block1 = _block(hidden)
        self.block2 = _block(hidden)
        self.out_proj = nn.Conv2d(hidden, channels, 3, padding=1)
        nn.init.zeros_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)  # pyright: ignore[reportArgumentType] - it has one

    def forward(self, z: torch.Tensor, predicted: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The correction (B,channels,h,w), to be added to the prediction.

        Args:
            z: latents (B,channels,h,w) that the model was asked about.
            predicted: what it answered, of the same shape.
            timesteps: (B,) the timesteps at which it was asked.
        """
        code = self.time_mlp(timestep_code(timesteps, self.config.hidden).to(z.dtype))
        hidden = self.in_proj(torch.cat([z, predicted], dim=1)) + code[:, :, None, None]
        hidden = hidden + self.block1(hidden)
        hidden = hidden + self.block2(hidden)
        return self.config.out_scale * self.out_proj(F.silu(hidden))


def _block(width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(2):
        layers += [nn.GroupNorm(_GROUPS, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)]
    return nn.Sequential(*layers)
