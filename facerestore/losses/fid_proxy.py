"""How far the descriptions of many pictures lie from those of real ones: what a step can know of FID."""

import torch
from torch import Tensor, nn

from facerestore.core.errors import ShapeError
from facerestore.features.inception import feature_statistics


class FidProxy(nn.Module):
    """Distance of the mean and of the variances of descriptions to fixed ones.

    A batch is too small for statistics. So those of steps before are kept in a queue: it is an argument, and
    `pushed` returns the next one. In a training `training.fid_queue` holds it.

    Args:
        mean: (D,) of the descriptions of real pictures; see `feature_statistics`.
        variance: (D,) of the same.

    Raises:
        ShapeError: if the two differ in shape.

    Reference:
        KLETech-CEVI (SA-FGRC), NTIRE 2026, arXiv:2604.10532, names an FID proxy without an equation; ours is
        |mu - mu_ref|^2 + |var - var_ref|_1, with the diagonal of the covariance alone.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, mean: Tensor, variance: Tensor) -> None:
        super().__init__()
        if mean.ndim != 1 or mean.shape != variance.shape:
            raise ShapeError(f"a mean and a variance (D,), the mean {tuple(mean.shape)}", variance.shape)
        self.register_buffer("mean", mean)
        self.register_buffer("variance", variance)

    def forward(self, features: Tensor, queue: Tensor) -> Tensor:
        """Compare the descriptions of a batch, and those before it, with the fixed statistics.

        Args:
            features: (B,D) of what was predicted, by `FidFeatures` or another extractor.
            queue: (N,D) of steps before, N from 0; they are constants.

        Returns:
            (B,) float32, >= 0, the same distance for each picture of the batch.

        Raises:
            ShapeError: if the widths differ.
        """
        width = len(self.mean)
        for each in (features, queue):
            if each.ndim != 2 or each.shape[1] != width:
                raise ShapeError(f"descriptions (N,{width})", each.shape)
        mean, variance = feature_statistics(torch.cat([features, queue.detach()]))
        distance = (mean - self.mean).square().sum() + (variance - self.variance).abs().sum()
        return distance.expand(len(features))


def pushed(queue: Tensor, features: Tensor, capacity: int) -> Tensor:
    """The queue for the next step: the descriptions of this one at its end, the oldest gone.

    Args:
        queue: (N,D).
        features: (B,D).
        capacity: how many are kept, at most.

    Returns:
        (min(N + B, capacity),D), a new tensor without gradient.
    """
    return torch.cat([queue, features.detach().to(queue)])[-capacity:]
