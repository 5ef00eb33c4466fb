"""What a generator and a discriminator minimise against each other, from the discriminator's logits alone.

A discriminator returns a list of logits maps, one for each level that it looks at. Of each the mean is taken,
and the levels are added, as OMGSR does it. High logits say "real".
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from facerestore.core.errors import ConfigError, ShapeError

Kind = Literal["hinge", "non_saturating", "soft_label"]
REAL_LABEL = 0.8
"""What `soft_label` calls real, for both sides (OMGSR and TUDSR); a fake is 0."""


def generator_loss(logits: Sequence[Tensor], kind: Kind = "non_saturating") -> Tensor:
    """How little a discriminator takes pictures for real ones.

    Args:
        logits: of the generator's pictures, each (B,...).
        kind: `hinge` is -l, `non_saturating` is -log sigmoid(l), `soft_label` is the cross-entropy of
            sigmoid(l) with `REAL_LABEL`.

    Returns:
        (B,) float32.

    Raises:
        ConfigError: if there is no such kind.
        ShapeError: if there are no logits, or of different numbers of pictures.

    Reference:
        hinge: Lim and Ye, 2017, arXiv:1705.02894; non-saturating: Goodfellow et al., 2014, arXiv:1406.2661,
        OSDFace's (arXiv:2411.17163); soft labels: OMGSR, arXiv:2508.08227.
    Parity:
        XPixelGroup/BasicSR@8d56e3a `GANLoss` (hinge; vanilla is non_saturating) and wuer5/OMGSR@8996613b
        `MultiLevelBCELoss`, 1e-6 abs.
    """
    return _score(logits, _sides(kind)[0])


def discriminator_loss(
    real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor], kind: Kind = "non_saturating"
) -> Tensor:
    """How badly a discriminator tells real pictures from those of the generator; both sides are added.

    Args:
        real_logits: of real pictures, each (B,...).
        fake_logits: of as many pictures of the generator, which was detached.
        kind: as in `generator_loss`; `hinge` is relu(1 - l) for real and relu(1 + l) for fake ones.

    Returns:
        (B,) float32.

    Raises:
        ConfigError: if there is no such kind.
        ShapeError: if there are no logits, or of different numbers of pictures.
    """
    _, real, fake = _sides(kind)
    on_real, on_fake = _score(real_logits, real), _score(fake_logits, fake)
    if on_real.shape != on_fake.shape:
        raise ShapeError(f"logits of as many fakes as real pictures, {len(on_real)}", on_fake.shape)
    return on_real + on_fake


def balance(fidelity: Tensor, against: Tensor, last: Tensor) -> Tensor:
    """The weight at which an adversarial loss pulls a layer as hard as another loss does.

    Args:
        fidelity: what the generator minimises otherwise, 0-d, computed through `last`.
        against: the mean of its `generator_loss`, 0-d, computed through `last`.
        last: the weight of the generator's last layer, which requires gradients.

    Returns:
        |grad fidelity| / (|grad against| + 1e-4), 0-d, at most 1e4, detached.

    Reference:
        Esser et al., 2021, VQGAN, arXiv:2012.09841.
    Parity:
        LIAGM/DAEFR@02d5010 `calculate_adaptive_weight`, whose last step, 0.8 times it, is left to the caller.
    """
    slopes = [torch.autograd.grad(loss, last, retain_graph=True)[0].norm() for loss in (fidelity, against)]
    return (slopes[0] / (slopes[1] + 1e-4)).clamp(max=1e4).detach()


def r1_penalty(logits: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """Squared slope of a discriminator at real data; usually weighed by half of 10 and taken every 16 steps.

    Args:
        logits: of real pictures, each (B,...), computed from `inputs`.
        inputs: the pictures, or the features that the heads read (which a frozen network described: cheaper,
            and what Sauer et al., 2023, arXiv:2311.17042 do), each (B,...) and requiring gradients.

    Returns:
        (B,) float32, differentiable once more.

    Raises:
        ConfigError: if an input does not require gradients.
        ShapeError: if there are no logits, or of different numbers of pictures.

    Reference:
        Mescheder et al., 2018, arXiv:1801.04406, Eq. 9.
    Parity:
        XPixelGroup/BasicSR@8d56e3a `r1_penalty`, the mean of the batch, for a discriminator of one logit.
    """
    if not all(tensor.requires_grad for tensor in inputs):
        raise ConfigError("R1 needs inputs that require gradients: call requires_grad_() before the network")
    total = _score(logits, _itself).sum()
    slopes = torch.autograd.grad(total, list(inputs), create_graph=True)
    return torch.stack([slope.square().flatten(1).sum(1) for slope in slopes]).sum(0)


def _score(logits: Sequence[Tensor], each: Callable[[Tensor], Tensor]) -> Tensor:
    if not logits:
        raise ShapeError("logits of one level or more", ())
    counts = {level.shape[0] for level in logits}
    if len(counts) > 1:
        raise ShapeError("logits of equally many pictures at each level", tuple(sorted(counts)))
    wide = [level.to(torch.promote_types(level.dtype, torch.float32)) for level in logits]
    return torch.stack([each(level).flatten(1).mean(1) for level in wide]).sum(0)


def _sides(kind: Kind) -> tuple[Callable[[Tensor], Tensor], ...]:
    """What the generator, and the discriminator of real and of fake pictures, makes of a logit."""
    if kind == "hinge":
        return torch.neg, _below_one, _above_minus_one
    if kind == "non_saturating":
        return _unlike_real, _unlike_real, F.softplus
    if kind == "soft_label":
        return _unlike_soft, _unlike_soft, F.softplus
    raise ConfigError(f"{kind!r} is no adversarial loss; take hinge, non_saturating or soft_label")


def _itself(logit: Tensor) -> Tensor:
    return logit


def _below_one(logit: Tensor) -> Tensor:
    return F.relu(1 - logit)


def _above_minus_one(logit: Tensor) -> Tensor:
    return F.relu(1 + logit)


def _unlike_real(logit: Tensor) -> Tensor:
    return F.softplus(-logit)


def _unlike_soft(logit: Tensor) -> Tensor:
    """Cross-entropy with a label y: softplus(l) - y l."""
    return F.softplus(logit) - REAL_LABEL * logit
