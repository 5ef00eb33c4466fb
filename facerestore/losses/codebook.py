"""Vector quantisation as it is trained: the choice of codes, and what pulls codes and features together."""

import torch
import torch.nn.functional as F
from torch import Tensor

from facerestore.core.errors import ShapeError


def nearest_codes(features: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The code nearest to each place.

    The squared distances are expanded and in float32, as in `nets.visual_prompt`, whose choice this is.

    Args:
        features: (B,D,h,w).
        codebook: (K,D); gradients of the codes reach it.

    Returns:
        Codes (B,D,h,w), and their rows in the codebook (B,h,w).

    Raises:
        ShapeError: if their widths differ.
    """
    if features.ndim != 4 or codebook.ndim != 2 or features.shape[1] != codebook.shape[1]:
        raise ShapeError(f"a codebook (K,{features.shape[1]})", codebook.shape)
    rows = features.detach().permute(0, 2, 3, 1)
    rows, codes = (x.detach().to(torch.promote_types(x.dtype, torch.float32)) for x in (rows, codebook))
    with torch.autocast(rows.device.type, enabled=False):  # which would multiply in half precision
        squared = rows.square().sum(3, keepdim=True) + codes.square().sum(1) - 2 * rows @ codes.mT
    indices = squared.argmin(3)
    return F.embedding(indices, codebook).permute(0, 3, 1, 2), indices


def straight_through(features: Tensor, codes: Tensor) -> Tensor:
    """The codes, through which gradients pass to the features as if nothing had been chosen."""
    return features + (codes - features).detach()


def codebook_loss(features: Tensor, codes: Tensor) -> Tensor:
    """Moves codes to the features that chose them: mean of |codes - features|^2, no gradient to the features.

    Args:
        features: (B,D,h,w).
        codes: `nearest_codes` of them.

    Returns:
        (B,), >= 0.

    Raises:
        ShapeError: if the shapes differ.

    Reference:
        van den Oord et al., 2017, VQ-VAE, arXiv:1711.00937, Eq. 3: this counts 1, `commitment_loss` 0.25.
    Parity:
        LIAGM/DAEFR@02d5010 `VectorQuantizer` (and taming-transformers in its first form) has them the other
        way round: 0.25 of this, 1 of the commitment. The mean of the batch is theirs.
    """
    return _apart(features.detach(), codes)


def commitment_loss(features: Tensor, codes: Tensor) -> Tensor:
    """Moves features to the codes that they chose: the same mean, no gradient to the codes.

    Args:
        features: (B,D,h,w).
        codes: `nearest_codes` of them.

    Returns:
        (B,), >= 0.

    Raises:
        ShapeError: if the shapes differ.
    """
    return _apart(features, codes.detach())


def _apart(features: Tensor, codes: Tensor) -> Tensor:
    if features.shape != codes.shape:
        raise ShapeError(f"codes of the shape of the features {tuple(features.shape)}", codes.shape)
    return (features - codes).square().flatten(1).mean(1)
