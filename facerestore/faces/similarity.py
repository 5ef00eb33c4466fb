"""Similarities of the plane: turning, scaling and shifting, without mirroring.

Matrices are (N,2,3) and map source pixels to crop pixels, `crop = M[:, :, :2] @ source + M[:, :, 2]`, both
with pixel centres at integers.
"""

import numpy as np
import torch

from facerestore.core.errors import ShapeError


def similarity_matrix(src: torch.Tensor | np.ndarray, dst: torch.Tensor | np.ndarray) -> torch.Tensor:
    """Fit the similarity that brings points closest to a template, in the sense of least squares.

    In the plane, without reflection, the optimum needs no singular values: with both sets centred, the scaled
    rotation is the complex number sum(conj(src) * dst) / sum(|src|^2).

    Args:
        src: points, (N,5,2), any number of points from 2 on.
        dst: template, (5,2) as many points.

    Returns:
        (N,2,3) in the dtype of `src`; computed in float64. Points that all coincide have no scale; they
        give a matrix that is not finite.

    Raises:
        ShapeError: if the shapes do not fit.

    Reference:
        Umeyama, 1991, "Least-squares estimation of transformation parameters between two point patterns",
        IEEE TPAMI 13(4), Eq. 40 to 43, the case of a proper rotation in two dimensions.
    """
    points = torch.as_tensor(src)
    template = torch.as_tensor(dst, device=points.device).double()
    if points.ndim != 3 or points.shape[2] != 2 or points.shape[1] < 2:
        raise ShapeError("points (N,5,2)", points.shape)
    if template.shape != points.shape[1:]:
        raise ShapeError(f"a template {tuple(points.shape[1:])}", template.shape)
    source = points.double()
    source_mean, target_mean = source.mean(dim=1), template.mean(dim=0)
    source, target = source - source_mean[:, None], template - target_mean
    spread = source.square().sum(dim=(1, 2))
    real = (source * target).sum(dim=(1, 2)) / spread
    imaginary = (source[..., 0] * target[..., 1] - source[..., 1] * target[..., 0]).sum(dim=1) / spread
    linear = torch.stack([torch.stack([real, -imaginary], -1), torch.stack([imaginary, real], -1)], dim=1)
    shift = target_mean - (linear @ source_mean[..., None])[..., 0]
    return torch.cat([linear, shift[..., None]], dim=2).to(points.dtype)


def invert(matrices: torch.Tensor) -> torch.Tensor:
    """The matrices (N,2,3) of the opposite direction, in the same dtype; computed in float64."""
    inverse = torch.linalg.inv(matrices[..., :2].double())
    shift = -inverse @ matrices[..., 2:].double()
    return torch.cat([inverse, shift], dim=2).to(matrices.dtype)


def compose(after: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """The matrices (N,2,3) that do `before` and then `after`; both (N,2,3), or (1,2,3) for all."""
    linear = after[..., :2] @ before[..., :2]
    return torch.cat([linear, after[..., :2] @ before[..., 2:] + after[..., 2:]], dim=2)


def window_matrix(
    centres: torch.Tensor, sides: torch.Tensor, rolls_deg: torch.Tensor, size_px: int
) -> torch.Tensor:
    """Matrices that cut out turned squares.

    Args:
        centres: (N,2), x then y, in source pixels.
        sides: (N,) in source pixels.
        rolls_deg: (N,) how far the squares are turned clockwise as seen.
        size_px: side of the crops.

    Returns:
        (N,2,3), source to crop pixels.
    """
    angles, scales = torch.deg2rad(rolls_deg), size_px / sides
    cosines, sines = scales * angles.cos(), scales * angles.sin()
    linear = torch.stack([torch.stack([cosines, sines], -1), torch.stack([-sines, cosines], -1)], dim=1)
    return torch.cat([linear, (size_px - 1) / 2 - linear @ centres[..., None]], dim=2)


def apply(matrices: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Map points (N,P,2) by matrices (N,2,3); result (N,P,2) in the dtype of the matrices."""
    return points.to(matrices.dtype) @ matrices[..., :2].transpose(1, 2) + matrices[:, None, :, 2]


def scale_of(matrices: torch.Tensor) -> torch.Tensor:
    """How many crop pixels a source pixel becomes, (N,)."""
    return torch.linalg.det(matrices[..., :2].double()).abs().sqrt()


def roll_deg_of(matrices: torch.Tensor) -> torch.Tensor:
    """How far the face in the source is turned clockwise as seen, (N,) degrees in (-180, 180], 0 upright."""
    roll = -torch.rad2deg(torch.atan2(matrices[:, 1, 0].double(), matrices[:, 0, 0].double()))
    return torch.where(roll <= -180, roll + 360, roll)
