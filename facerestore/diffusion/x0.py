"""From what a network predicts to the clean latent: one function for each meaning of the prediction.

The recipes differ in sign, in scale and in what the network was trained to say, so nothing here is shared
between them but the check of shapes. Latents are (B,C,h,w) after scaling; results are float32.
The diffusion ones compute in float64, the flow ones in float32 as the schedulers of diffusers do.
"""

import torch

from facerestore.core.errors import ShapeError

AlphaBar = float | torch.Tensor  # of the timestep; a tensor must broadcast against the latent


def x0_from_eps(z: torch.Tensor, eps: torch.Tensor, alpha_bar: AlphaBar) -> torch.Tensor:
    """Clean latent from predicted noise, `(z - sqrt(1 - a) * eps) / sqrt(a)`.

    For OSDFace, OMGSR-S, OSEDiff (whose one scheduler step from t=999 is this), S3Diff and HAODiff.
    """
    _check(z, eps)
    alpha = _double(alpha_bar)
    clean = (_double(z) - (1 - alpha).sqrt() * _double(eps)) / alpha.sqrt()
    return clean.float().to(z.device)


def x0_from_scaled_residual(z: torch.Tensor, residual: torch.Tensor, alpha_bar: AlphaBar) -> torch.Tensor:
    """Clean latent from a residual of the rescaled input, `z / sqrt(a) - residual`, for TADSR and BVI."""
    _check(z, residual)
    alpha = _double(alpha_bar)
    return (_double(z) / alpha.sqrt() - _double(residual)).float().to(z.device)


def x0_from_residual(z: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """Clean latent from a plain residual, `z - residual`, for PiSA-SR and TSD-SR."""
    _check(z, residual)
    return z.float() - residual.float()


def x0_direct(z: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Clean latent that the network returns itself, for SDFace; `z` only says the shape."""
    _check(z, out)
    return out.float()


def x0_from_velocity(z: torch.Tensor, velocity: torch.Tensor, sigma: float) -> torch.Tensor:
    """Clean latent from the velocity `noise - clean`, `z - sigma * velocity`, for OMGSR-F."""
    _check(z, velocity)
    return z.float() - sigma * velocity.float()


def x0_from_zimage(z: torch.Tensor, out: torch.Tensor, sigma: float) -> torch.Tensor:
    """Clean latent from the raw output `clean - noise` of Z-Image's transformer, `z + sigma * out`."""
    _check(z, out)
    return z.float() + sigma * out.float()


def _check(z: torch.Tensor, out: torch.Tensor) -> None:
    if z.shape != out.shape:
        raise ShapeError(f"a prediction of the latent's shape {tuple(z.shape)}", out.shape)


def _double(value: float | torch.Tensor) -> torch.Tensor:
    """In float64, on the CPU where the device has none."""
    if isinstance(value, torch.Tensor) and value.device.type == "mps":
        value = value.cpu()
    return torch.as_tensor(value, dtype=torch.float64)
