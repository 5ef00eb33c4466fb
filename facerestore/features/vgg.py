"""What VGG sees in a picture: activations of chosen layers, with the normalisation of ImageNet."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor, nn

from facerestore.core.errors import ConfigError, ShapeError
from facerestore.features.imagenet import MEAN_RGB, STD_RGB
from facerestore.nets.vgg import Vgg
from facerestore.weights.load import load_into
from facerestore.weights.seeded import made

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

LEAST_PX = 16
"""Smaller pictures are gone before the last block."""


class VggFeatures(nn.Module):
    """Turns pictures into activations; differentiable.

    Args:
        net: the convolutions.
        taps: names of layers; see `Vgg`.
        pool: halves maps in place of the maximum over 2 x 2.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: Vgg, taps: Sequence[str], pool: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        unknown = [tap for tap in taps if tap not in net.names]
        if unknown or not taps:
            raise ConfigError(f"VGG-{net.config.depth} has no layer {unknown[0] if unknown else ''!r}")
        self.net = net
        self.taps = tuple(taps)
        self.pool = pool
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD_RGB).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def load(cls, store: "WeightStore", taps: Sequence[str], depth: Literal[16, 19] = 19) -> Self:
        """Build it with the weights of ImageNet, frozen and in eval mode.

        Raises:
            WeightsError: if the file is not there, damaged, or does not fit.
        """
        return cls(load_vgg(store, depth), taps).eval().requires_grad_(False)

    @classmethod
    def tiny(cls, taps: Sequence[str], depth: Literal[16, 19] = 19) -> Self:
        """Four channels and made weights; for tests."""
        return cls(tiny_vgg(depth), taps).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Describe.

        Args:
            images: (B,3,H,W) float32, those of pictures in [0,1]; other values are not refused.

        Returns:
            A map (B,C,h,w) for each tap.

        Raises:
            ShapeError: if they are no pictures, or have less than 16 px.
        """
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < LEAST_PX:
            raise ShapeError(f"pictures (B,3,H,W) of at least {LEAST_PX} px", images.shape)
        return self.net((images - self.mean) / self.std, self.taps, self.pool)


def load_vgg(store: "WeightStore", depth: Literal[16, 19]) -> Vgg:
    """The convolutions with the weights of ImageNet, frozen and in eval mode.

    Raises:
        WeightsError: if the file is not there, damaged, or does not fit.
    """
    name = f"torchvision/vgg{depth}"
    net = Vgg(Vgg.Config(depth=depth))
    load_into(net, store.load(name), name)
    return net.eval().requires_grad_(False)


def tiny_vgg(depth: Literal[16, 19] = 16) -> Vgg:
    """Four channels and made weights; for tests."""
    return made(lambda: Vgg(Vgg.Config.tiny(depth)))
