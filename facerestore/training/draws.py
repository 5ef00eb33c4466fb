"""Random tensors of a batch, each sample's from its own seed, so that no batch and no device changes them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from facerestore.core.seeding import generator


def noise_like(z: Tensor, seeds: Sequence[int], name: str) -> Tensor:
    """Normal noise of the shape of `z` (B,...), drawn on the CPU.

    Args:
        z: says shape, dtype and device.
        seeds: one per sample.
        name: of what draws.
    """
    draws = [torch.randn(z.shape[1:], generator=generator(seed, name)) for seed in seeds]
    return torch.stack(draws).to(z)


def integers(low: int, high: int, seeds: Sequence[int], name: str, device: torch.device) -> Tensor:
    """Whole numbers (B,) from `low` to below `high`, one per sample."""
    draws = [torch.randint(low, high, (), generator=generator(seed, name)) for seed in seeds]
    return torch.stack(draws).to(device)
