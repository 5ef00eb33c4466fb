"""The association of degraded and clean faces that OSDFace's visual prompt is trained by, as CLIP's is."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.errors import ShapeError


class AssociationLoss(nn.Module):
    """Each place of a degraded face is to be more like the same place of the clean one than like any other.

    The features of both branches, before they are quantised, are taken as rows, made unit vectors, and
    compared all with all: logits = exp(s) H L^T. The loss is the cross-entropy with the diagonal, over rows
    and over columns, each counting half. s is learned, and begins at ln(1 / 0.07).

    Other than the rest, the value of a picture depends on those beside it: they are what it is told from.

    Reference:
        Tsai et al., 2024, DAEFR, arXiv:2308.07314, whose checkpoint layout OSDFace's has; OSDFace adds it
        with weight 0 first, then 1.
    Parity:
        LIAGM/DAEFR@02d5010 `association_stage.py`, the mean of the batch, 1e-5 abs; `logit_scale` is its key.
    """

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare; gradients reach both branches.

        Args:
            pred: features of degraded faces (B,C,h,w).
            target: features of the clean ones, of the same shape.

        Returns:
            (B,) float32, >= 0, the mean over the places of each picture.

        Raises:
            ShapeError: if the shapes differ.
        """
        if pred.shape != target.shape or pred.ndim != 4:
            raise ShapeError(f"features of one shape (B,C,h,w), the first {tuple(pred.shape)}", target.shape)
        degraded, clean = (F.normalize(_rows(features), dim=1) for features in (pred, target))
        with torch.autocast(pred.device.type, enabled=False):  # which would multiply in half precision
            logits = self.logit_scale.exp() * clean @ degraded.mT
        same = torch.arange(len(logits), device=logits.device)
        apart = F.cross_entropy(logits, same, reduction="none")
        apart = apart + F.cross_entropy(logits.mT, same, reduction="none")
        return apart.view(len(pred), -1).mean(1) / 2


def _rows(features: Tensor) -> Tensor:
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    return wide.permute(0, 2, 3, 1).flatten(0, 2)
