"""What eyes and mouths of a restored face are compared by, beyond their pixels.

All of it reads what `losses.discriminators.roi`, or another network, says of crops; what the true face is
said to be is taken as given.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from facerestore.core.errors import ShapeError

MARGIN = 0.2
"""How much nearer than the degraded crop the true one is to be, in squared distance of unit vectors."""
_STYLE_WEIGHTS = (0.5, 1.0)


def gram(features: Tensor) -> Tensor:
    """Which channels fire together: (B,C,H,W) to (B,C,C), divided by C H W."""
    flat = features.flatten(2)
    return flat @ flat.mT / flat[0].numel()


def component_style_loss(pred: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """L1 of the Gram matrices of both maps of a component, the first counting half; GFPGAN weighs it by 200.

    Args:
        pred: what `ComponentDiscriminator.features` says of restored crops, two maps (B,C,H,W).
        target: the same of true crops; no gradient reaches it.

    Returns:
        (B,) float32, 0 for equal styles.

    Raises:
        ShapeError: if there are not two maps of each, or of other shapes.

    Reference:
        Wang et al., 2021, GFPGAN, arXiv:2101.04061.
    Parity:
        TencentARC/GFPGAN@7552a77 `gfpgan_model.py`, 1e-6 rel; the mean of the batch is theirs.
    """
    if len(pred) != len(_STYLE_WEIGHTS) or [x.shape for x in pred] != [x.shape for x in target]:
        raise ShapeError("two maps of the true crops for two of the restored", (len(pred), len(target)))
    levels = zip(_STYLE_WEIGHTS, pred, target, strict=True)
    distances = [weight * (gram(x) - gram(y.detach())).abs().mean((1, 2)) for weight, x, y in levels]
    return torch.stack(distances).sum(0)


def embedding(features: Tensor) -> Tensor:
    """A map (B,C,H,W) as unit vectors (B,C), the mean of its positions, for the two losses below."""
    return F.normalize(features.mean((2, 3)), dim=1)


def triplet_loss(pred: Tensor, target: Tensor, degraded: Tensor, margin: float = MARGIN) -> Tensor:
    """A restored component is to lie nearer to the true one than to what it was made of.

    max(0, |pred - target|^2 - |pred - degraded|^2 + margin).

    Args:
        pred: `embedding` of restored crops (B,D), the anchor.
        target: of true crops, the positive; no gradient reaches it.
        degraded: of the degraded crops, or of another person's, the negative; no gradient reaches it.
        margin: how much nearer.

    Returns:
        (B,), >= 0.

    Raises:
        ShapeError: if the shapes differ.

    Reference:
        Schroff et al., 2015, FaceNet, arXiv:1503.03832; on eyes and mouth in NTIRE 2026's MaDENN entry,
        whose embedding is not published.
    """
    _require_vectors(pred, target, degraded)
    to_target = (pred - target.detach()).square().sum(1)
    to_degraded = (pred - degraded.detach()).square().sum(1)
    return F.relu(to_target - to_degraded + margin)


def symmetry_loss(left: Tensor, right: Tensor, target_left: Tensor, target_right: Tensor) -> Tensor:
    """The eyes are to be as unlike each other as those of the true face are, no more and no less.

    | |left - right|^2 - |target_left - target_right|^2 |.

    Args:
        left: `embedding` of restored left eyes (B,D).
        right: of restored right eyes, whose crops were mirrored (`flip(3)`) before.
        target_left: of true left eyes; no gradient reaches it.
        target_right: of true right eyes, mirrored too; no gradient reaches it.

    Returns:
        (B,), >= 0.

    Raises:
        ShapeError: if the shapes differ.

    Reference:
        Ours, after "bilateral symmetry" in NTIRE 2026's MaDENN entry, which gives no formula.
    """
    _require_vectors(left, right, target_left, target_right)
    unlike = (left - right).square().sum(1)
    target = (target_left - target_right).square().sum(1).detach()
    return (unlike - target).abs()


def _require_vectors(first: Tensor, *others: Tensor) -> None:
    for other in others:
        if first.ndim != 2 or other.shape != first.shape:
            raise ShapeError(f"embeddings of one shape (B,D), the first {tuple(first.shape)}", other.shape)
