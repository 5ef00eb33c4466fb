"""Losses of latents (B,C,h,w) after scaling: their mean square, and OMGSR's refinement of the degraded."""

from torch import Tensor

from facerestore.core.errors import ShapeError
from facerestore.diffusion.noising import AlphaBar, Sigma, noised, noised_flow


def latent_mse(pred: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of each latent.

    Args:
        pred: (B,C,h,w).
        target: of the same shape.

    Returns:
        (B,), 0 for equal latents.

    Raises:
        ShapeError: if the shapes differ.
    """
    if pred.shape != target.shape or pred.ndim != 4:
        raise ShapeError(f"two latents of one shape (B,C,h,w), the first {tuple(pred.shape)}", target.shape)
    return (pred - target).square().flatten(1).mean(1)


def lrr(z_lq: Tensor, z_hq: Tensor, noise: Tensor, alpha_bar: AlphaBar) -> Tensor:
    """Latent representation refinement: the degraded latent is to look like a noised clean one.

    |sqrt(a) z_hq + sqrt(1 - a) noise - z_lq|^2, of which the mean is taken; OMGSR-S weighs it by 5.

    Args:
        z_lq: what the encoder that is trained makes of the degraded picture, (B,C,h,w).
        z_hq: what the frozen encoder makes of the clean one; no gradient reaches it.
        noise: fresh in every step, normal.
        alpha_bar: of the timestep at which the network is asked; a number, or (B,).

    Returns:
        (B,).

    Raises:
        ShapeError: if the shapes differ.

    Reference:
        Wu et al., 2025, OMGSR, arXiv:2508.08227; wuer5/OMGSR@8996613b `train/train_omgsr_s.py`.
    """
    return latent_mse(z_lq, noised(z_hq.detach(), noise, alpha_bar))


def lrr_flow(z_lq: Tensor, z_hq: Tensor, noise: Tensor, sigma: Sigma) -> Tensor:
    """The same for flow matching, |(1 - s) z_hq + s noise - z_lq|^2, as in OMGSR-F and HONORAICamera.

    Args:
        z_lq: what the encoder that is trained makes of the degraded picture, (B,C,h,w).
        z_hq: what the frozen encoder makes of the clean one; no gradient reaches it.
        noise: fresh in every step, normal.
        sigma: the noise level at which the network is asked; a number, or (B,).

    Returns:
        (B,).

    Raises:
        ShapeError: if the shapes differ.

    Reference:
        wuer5/OMGSR@8996613b `train/train_omgsr_f.py`.
    """
    return latent_mse(z_lq, noised_flow(z_hq.detach(), noise, sigma))
