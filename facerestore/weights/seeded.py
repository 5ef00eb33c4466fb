"""Made weights for tests and measurements: the same numbers for the same key names on every machine."""

import math
import zlib
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


def fill_seeded(net: nn.Module) -> None:
    """Overwrite every tensor of `net` with numbers that follow from its key name alone.

    Matrices and filters are normal with variance 1/fan_in, so that signals keep their size; vectors are
    small. Draws from generators seeded by the crc32 of the key, never from torch's global one.
    """
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            if not tensor.is_floating_point():
                continue
            generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
            spread = 1 / math.sqrt(tensor[0].numel()) if tensor.ndim > 1 else 0.02
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * spread)


def fill_seeded_norms(net: nn.Module) -> None:
    """As `fill_seeded`, for networks with batch normalisation.

    Factors and variances come to lie near 1 and the slopes of activations near 1/4, so that signals neither
    die out nor stop being numbers.
    """
    fill_seeded(net)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                if module.running_var is not None:
                    module.running_var.abs_().add_(1)
                if module.affine:
                    module.weight.add_(1)
            elif isinstance(module, nn.PReLU):
                module.weight.add_(0.25)


def made(build: Callable[[], Net]) -> Net:
    """A frozen network in eval mode with made weights; building it draws nothing from torch's generator.

    Args:
        build: makes it, with all that it holds in its state.
    """
    with torch.device("meta"):
        net = build()
    net.to_empty(device="cpu")
    fill_seeded(net)
    return net.eval().requires_grad_(False)
