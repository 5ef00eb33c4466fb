"""Distances of pictures as people see them: LPIPS and DISTS, each in the variants that are in use."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from facerestore.features.dists import Dists
from facerestore.features.lpips import Lpips

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

_REDUCED_PX = 256
Measure = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]


def lpips(trunk: str) -> "Callable[[WeightStore, torch.device], Measure]":
    """LPIPS of a trunk, `vgg` or `alex`."""

    def build(store: "WeightStore", device: torch.device) -> Measure:
        net = Lpips.load(store, "alex" if trunk == "alex" else "vgg").to(device)
        return lambda pred, target, points: net(pred, target)

    return build


def dists(store: "WeightStore", device: torch.device) -> Measure:
    """DISTS of the pictures as they are."""
    net = Dists.load(store).to(device)
    return lambda pred, target, points: net(pred, target)


def dists_256(store: "WeightStore", device: torch.device) -> Measure:
    """DISTS of pictures whose shorter side was brought to 256 px, as its authors' own function does."""
    net = Dists.load(store).to(device)
    return lambda pred, target, points: net(_reduced(pred), _reduced(target if target is not None else pred))


def _reduced(images: Tensor) -> Tensor:
    scale = _REDUCED_PX / min(images.shape[2:])
    size = (round(images.shape[2] * scale), round(images.shape[3] * scale))
    return F.interpolate(images, size=size, mode="bilinear", antialias=True).clamp(0, 1)
