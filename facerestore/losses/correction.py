"""What keeps a correction small beside what it corrects."""

import torch
import torch.nn.functional as F
from torch import Tensor

from facerestore.core.errors import ConfigError
from facerestore.imaging.pairs import pair


def ratio_cap(correction: Tensor, predicted: Tensor, cap: float = 0.1) -> Tensor:
    """The square of how far the norm of a correction exceeds a share of the norm of what it corrects.

    What is corrected is a constant here: it could make the ratio smaller by growing.

    Args:
        correction: (B,...), what `ResidualRefiner` returns.
        predicted: the same shape, what it was made from.
        cap: the share that is free, > 0.

    Returns:
        (B,) float32, relu(|correction| / |predicted| - cap)^2; 0 up to the cap.

    Raises:
        ConfigError: if the cap is not above 0.
        ShapeError: if the shapes differ.

    Reference:
        BVI, NTIRE 2026: "a ratio-capped regulariser" that keeps the refiner from overwhelming the student.
        Only that is published: the L2 norms over a whole latent, the square and the 0.1 are our reading.
    """
    if not cap > 0:
        raise ConfigError(f"the cap of a ratio should be above 0, got {cap}")
    correction, predicted = pair(correction, predicted)
    norms = [torch.linalg.vector_norm(each.flatten(1), dim=1) for each in (correction, predicted.detach())]
    return F.relu(norms[0] / norms[1].clamp(min=1e-8) - cap).square()
