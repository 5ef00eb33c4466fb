"""Distillation from a frozen diffusion model: predictions are moved to where it finds clean latents likelier.

A prediction is noised, a teacher and a second network say what it was before, and the difference of their
answers is the gradient. VSD and TA-VSD train the second network on the predictions beside the generator
(`fake_score_loss`); CSD takes the teacher without its prompt. Networks are given as callables that hold their
own prompt; none of them receives a gradient here but the second one in its own loss.

Reference:
    VSD: Wang et al., 2023, ProlificDreamer, arXiv:2305.16213, in the one-step form of DMD (Yin et al., 2024,
    arXiv:2311.18828) and OSEDiff (Wu et al., 2024, arXiv:2406.08177). CSD: Yu et al., 2024, arXiv:2310.19415,
    and PiSA-SR (Sun et al., 2025, arXiv:2412.03017). TA-VSD: TADSR, 2025, arXiv:2508.16557.
Parity:
    cswry/OSEDiff@fcc4f09, csslc/PiSA-SR@9c76e12 and zty557/TADSR@b0eaa30: loss and gradient for one teacher,
    noise and timesteps, 1e-5 rel.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from facerestore.diffusion.noising import alpha_bar_at, noised, noised_flow
from facerestore.losses.latent import latent_mse

VSD_TIMESTEPS = (20, 980)
"""VSD draws whole timesteps from the first to below the second (OSEDiff)."""
CSD_TIMESTEPS = (20, 500)
"""CSD draws lower ones (PiSA-SR)."""
FAKE_SCORE_TIMESTEPS = (0, 1000)
"""The second network is trained on all."""
GUIDANCE = 7.5
"""How far the teacher's answer is taken beyond its answer without a prompt."""
_LEAST_ERROR = 1e-8

Network = Callable[[Tensor, Tensor], Tensor]
"""Noised latents (B,C,h,w) and their levels (B,) to the prediction (B,C,h,w)."""
Teacher = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""The same to two predictions: with the prompt, and without or with a negative one."""


@dataclass(frozen=True, slots=True)
class Noising:
    """What a network's levels and predictions mean.

    Attributes:
        noise: clean latents, noise and levels to noised latents.
        clean: noised latents, a prediction and levels to clean latents.
        target: clean latents and noise to what is to be predicted.
    """

    noise: Callable[[Tensor, Tensor, Tensor], Tensor]
    clean: Callable[[Tensor, Tensor, Tensor], Tensor]
    target: Callable[[Tensor, Tensor], Tensor]


def _eps_noise(clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    return noised(clean, noise, alpha_bar_at(timesteps))


def _eps_clean(z_t: Tensor, eps: Tensor, timesteps: Tensor) -> Tensor:
    alpha = alpha_bar_at(timesteps).view(-1, 1, 1, 1)
    return (z_t - (1 - alpha).sqrt() * eps) / alpha.sqrt()


def _eps_target(clean: Tensor, noise: Tensor) -> Tensor:
    del clean
    return noise


def _flow_clean(z_t: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    return z_t - sigma.view(-1, 1, 1, 1) * velocity


def _flow_target(clean: Tensor, noise: Tensor) -> Tensor:
    return noise - clean


EPS = Noising(_eps_noise, _eps_clean, _eps_target)
"""Stable Diffusion: levels are whole timesteps in 0 to 999, the noise is predicted."""
FLOW = Noising(noised_flow, _flow_clean, _flow_target)
"""Flow matching (FLUX, Z-Image): levels are shares of noise in (0,1), noise less clean is predicted."""


def vsd_loss(
    z: Tensor,
    noise: Tensor,
    levels: Tensor,
    *,
    teacher: Teacher,
    fake: Network,
    guidance: float | Tensor = GUIDANCE,
    noising: Noising = EPS,
) -> Tensor:
    """Variational score distillation: towards the teacher's idea of the prediction, away from the second's.

    Args:
        z: what the generator predicts, (B,C,h,w), after scaling.
        noise: normal, of the same shape.
        levels: (B,) as `noising` says; `VSD_TIMESTEPS` are usual.
        teacher: the frozen network.
        fake: the network that is trained on the generator's predictions.
        guidance: of the teacher; one, or (B,).
        noising: what levels and predictions mean.

    Returns:
        (B,) as in `distillation_loss`.

    Raises:
        ShapeError: if a shape does not fit.
    """
    with torch.no_grad():
        z_t = noising.noise(z.detach(), noise, levels)
        told, untold = teacher(z_t, levels)
        real = noising.clean(z_t, guided(told, untold, guidance), levels)
        fake_clean = noising.clean(z_t, fake(z_t, levels), levels)
    return distillation_loss(z, fake_clean, real)


def csd_loss(
    z: Tensor,
    noise: Tensor,
    levels: Tensor,
    *,
    teacher: Teacher,
    guidance: float | Tensor = GUIDANCE,
    noising: Noising = EPS,
) -> Tensor:
    """Classifier score distillation: what the prompt changes in the teacher's idea; no second network.

    Args:
        z: what the generator predicts, (B,C,h,w), after scaling.
        noise: normal, of the same shape.
        levels: (B,) as `noising` says; `CSD_TIMESTEPS` are usual.
        teacher: the frozen network.
        guidance: of the teacher; one, or (B,).
        noising: what levels and predictions mean.

    Returns:
        (B,) as in `distillation_loss`.

    Raises:
        ShapeError: if a shape does not fit.
    """
    with torch.no_grad():
        z_t = noising.noise(z.detach(), noise, levels)
        told, untold = teacher(z_t, levels)
        real = noising.clean(z_t, guided(told, untold, guidance), levels)
        unprompted = noising.clean(z_t, untold, levels)
    return distillation_loss(z, unprompted, real)


def ta_vsd_loss(z: Tensor, noise: Tensor, timesteps: Tensor, *, teacher: Teacher, fake: Network) -> Tensor:
    """Time-aware VSD of TADSR: the teacher is asked at half the student's timestep, its guidance grows.

    At t the teacher sees t // 2 and is guided by 7.5 + (t // 2) / 200, so that a low timestep keeps and a
    high one invents. Predictions are eps.

    Args:
        z: what the student predicts at `timesteps`, (B,C,h,w), after scaling.
        noise: normal, of the same shape.
        timesteps: (B,) of the student, whole numbers in 0 to 999.
        teacher: the frozen network.
        fake: the network that is trained on the student's predictions.

    Returns:
        (B,) as in `distillation_loss`.

    Raises:
        ShapeError: if a shape does not fit.
    """
    levels = timesteps // 2
    return vsd_loss(z, noise, levels, teacher=teacher, fake=fake, guidance=GUIDANCE + levels / 200)


def fake_score_loss(
    z: Tensor, noise: Tensor, levels: Tensor, *, fake: Network, noising: Noising = EPS
) -> Tensor:
    """What the second network is trained by: it learns to denoise the generator's predictions.

    Args:
        z: what the generator predicts, (B,C,h,w), after scaling; no gradient reaches it.
        noise: normal, of the same shape.
        levels: (B,) as `noising` says, of all of the range; `FAKE_SCORE_TIMESTEPS`.
        fake: the network.
        noising: what levels and predictions mean.

    Returns:
        (B,), the mean squared error of each prediction.

    Raises:
        ShapeError: if a shape does not fit.
    """
    clean = z.detach()
    predicted = fake(noising.noise(clean, noise, levels), levels)
    return latent_mse(predicted.to(z.dtype), noising.target(clean, noise))


def guided(told: Tensor, untold: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guidance, untold + scale (told - untold).

    Args:
        told: prediction with the prompt (B,C,h,w).
        untold: without, or with a negative one.
        scale: one, or (B,); 1 is the prediction with the prompt.
    """
    return untold + torch.as_tensor(scale, dtype=told.dtype, device=told.device).view(-1, 1, 1, 1) * (
        told - untold
    )


def distillation_loss(z: Tensor, fake: Tensor, real: Tensor) -> Tensor:
    """A loss whose gradient with respect to `z` is 2 g / (C h w), g = (fake - real) / mean |z - real|.

    Args:
        z: what the generator predicts (B,C,h,w).
        fake: clean latents as the second network sees them; no gradient reaches them.
        real: as the teacher sees them; no gradient reaches them.

    Returns:
        (B,), the mean of g^2: 0 where both networks agree. It says how far they disagree, not how good a
        prediction is, and need not fall.

    Raises:
        ShapeError: if the shapes differ.
    """
    with torch.no_grad():
        error = (z - real).abs().mean((1, 2, 3), keepdim=True)
        aim = z - (fake - real) / error.clamp(min=_LEAST_ERROR)
    return latent_mse(z, aim)
