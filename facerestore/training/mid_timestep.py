"""Where degraded latents belong in a schedule of noise: at which timestep, or sigma, to ask a one-step model.

Reference:
    OMGSR, 2025, arXiv:2508.08227, section 3: the level whose signal-to-noise ratio is, on average over faces,
    that of the degraded latent, `E[z_hq^2] / E[(z_lq - z_hq)^2]`. It hangs on the degradation: search again
    when that changes, and give the adapter the level that it was trained at.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from facerestore.core.errors import ConfigError
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.schedule import sd_alpha_bar

_SIGMAS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseLevel:
    """What was found.

    Attributes:
        timestep: of 0 to 999 in Stable Diffusion's schedule.
        sigma: in (0,1) of a flow, z = (1 - sigma) * clean + sigma * noise, in thousandths.
        snr: signal-to-noise ratio of the degraded latents, mean over the faces.
        faces: how many were looked at.
    """

    timestep: int
    sigma: float
    snr: float
    faces: int


@torch.no_grad()
def find_noise_level(codec: LatentCodec, pairs: Iterable[tuple[Tensor, Tensor]]) -> NoiseLevel:
    """Look at faces and what became of them.

    Args:
        codec: the autoencoder of the base model, without adapters; latents are taken at the posterior's mode.
        pairs: degraded and sharp faces, both (B,3,H,W) in [0,1], batch by batch; some hundred faces suffice.

    Raises:
        ConfigError: if there are none, or none is degraded.
    """
    signal: list[Tensor] = []
    error: list[Tensor] = []
    for lq, hq in pairs:
        seeds = (0,) * len(hq)
        z_lq, z_hq = codec.encode(lq, seeds).double(), codec.encode(hq, seeds).double()
        signal.append(z_hq.square().flatten(1).mean(1).cpu())
        error.append((z_lq - z_hq).square().flatten(1).mean(1).cpu())
    if not signal:
        raise ConfigError("there are no faces to find a noise level with")
    power, noise = torch.cat(signal), torch.cat(error)
    if bool((noise <= 0).any()):
        raise ConfigError("a face came back as it was: the pairs must be degraded as in training")
    snr = power / noise
    alpha = sd_alpha_bar().double()
    sigma = torch.arange(1, _SIGMAS, dtype=torch.float64) / _SIGMAS
    return NoiseLevel(
        timestep=_nearest(alpha / (1 - alpha), power, snr),
        sigma=float(sigma[_nearest((1 - sigma).square() / sigma.square(), power, snr)]),
        snr=float(snr.mean()),
        faces=len(snr),
    )


def _nearest(ratio: Tensor, power: Tensor, snr: Tensor) -> int:
    """Index of the level whose ratio, times the power of each face, lies nearest to their own on average."""
    return int((ratio[:, None] * power - snr).abs().mean(1).argmin())
