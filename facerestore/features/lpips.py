"""LPIPS: how far two pictures lie apart in the activations of a network, weighted as people see it."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import Tensor, nn

from facerestore.core.errors import ShapeError, WeightsNotFound
from facerestore.features.vgg import LEAST_PX, load_vgg, tiny_vgg
from facerestore.imaging.pairs import picture_pair
from facerestore.imaging.range import to_signed
from facerestore.nets.alexnet import AlexNet
from facerestore.nets.vgg import Vgg
from facerestore.weights.load import load_into, read_tensors, require_alike
from facerestore.weights.seeded import made

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

Trunk = Literal["vgg", "alex"]
SHIFT_RGB = (-0.030, -0.088, -0.188)
SCALE_RGB = (0.458, 0.448, 0.450)
TAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
_ALEX_LEAST_PX = 31
_EPS = 1e-10


class Lpips(nn.Module):
    """A distance of pictures, 0 for equal ones.

    Losses take VGG, published tables AlexNet, where they do not say otherwise.

    Args:
        net: whose activations are compared.
        heads: for each activation a weight (C,) >= 0 of its channels.

    Raises:
        ShapeError: if the heads do not fit the network.

    Reference:
        Zhang, Isola, Efros, Shechtman, Wang, 2018, arXiv:1801.03924, Eq. 1, in its version 0.1.
    Parity:
        lpips 0.1.4 with `normalize=True` on the same weights, 1e-6 abs in float32, live. Deviations: the
        gradient where an activation is all zeros is 0 and not NaN.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: Vgg | AlexNet, heads: Sequence[Tensor]) -> None:
        super().__init__()
        widths = net.config.widths
        if [tuple(head.shape) for head in heads] != [(width,) for width in widths]:
            raise ShapeError(f"heads of {widths} channels", [len(head) for head in heads])
        self.net = net
        self.least_px = LEAST_PX if isinstance(net, Vgg) else _ALEX_LEAST_PX
        self.heads = nn.ParameterList(heads).requires_grad_(False)
        self.register_buffer("shift", torch.tensor(SHIFT_RGB).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE_RGB).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def load(cls, store: "WeightStore", trunk: Trunk = "vgg") -> Self:
        """Build it with the published weights, frozen and in eval mode.

        The heads are those in the installed package lpips, of which no code is run; the network's weights are
        the user's to fetch.

        Raises:
            WeightsError: if a file is not there, damaged, or does not fit.
        """
        if trunk == "vgg":
            return cls(load_vgg(store, 16), published_heads(trunk)).eval()
        net = AlexNet(AlexNet.Config()).eval().requires_grad_(False)
        load_into(net, store.load("torchvision/alexnet"), "torchvision/alexnet")
        return cls(net, published_heads(trunk)).eval()

    @classmethod
    def tiny(cls, trunk: Trunk = "vgg") -> Self:
        """Four channels and made weights; for tests."""
        net = tiny_vgg() if trunk == "vgg" else made(lambda: AlexNet(AlexNet.Config.tiny()))
        return cls(net, [torch.ones(width) / width for width in net.config.widths]).eval()

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare.

        Args:
            pred: (B,3,H,W) float32, those of pictures in [0,1], of 16 px or more (31 for AlexNet); values
                beyond are not refused, since maps of edges have them.
            target: the same shape.

        Returns:
            (B,) float32, >= 0.

        Raises:
            ShapeError: if they are no pictures, too small, or their shapes differ.
        """
        pred, target = picture_pair(pred, target)
        if min(pred.shape[2:]) < self.least_px:
            raise ShapeError(f"pictures (B,3,H,W) of at least {self.least_px} px", pred.shape)
        levels = zip(self._activations(pred), self._activations(target), self.heads, strict=True)
        return torch.stack([_weighted((x - y).square(), head) for x, y, head in levels]).sum(0)

    def _activations(self, images: Tensor) -> list[Tensor]:
        pixels = (to_signed(images) - self.shift) / self.scale
        maps = self.net(pixels, TAPS) if isinstance(self.net, Vgg) else self.net(pixels)
        return [_unit(each.to(torch.promote_types(each.dtype, torch.float32))) for each in maps]


def published_heads(trunk: Trunk) -> list[Tensor]:
    """The weights of channels in the installed package lpips, version 0.1: a vector for each activation.

    Raises:
        WeightsNotFound: if the package is not installed, or its file is missing.
        WeightsError: if the file is damaged or holds anything else.
    """
    package = find_spec("lpips")
    if package is None or package.origin is None:
        raise WeightsNotFound("the package lpips, which holds the heads of LPIPS, is not installed")
    path = Path(package.origin).parent / "weights" / "v0.1" / f"{trunk}.pth"
    widths = (Vgg.Config() if trunk == "vgg" else AlexNet.Config()).widths
    heads = read_tensors(path)
    like = {f"lin{level}.model.1.weight": torch.empty(1, width, 1, 1) for level, width in enumerate(widths)}
    require_alike(heads, like, str(path))
    return [heads[key].flatten() for key in like]


def _unit(maps: Tensor) -> Tensor:
    """Each place of maps (B,C,h,w) as a vector of length 1; zeros stay zeros."""
    return maps / (torch.linalg.vector_norm(maps, dim=1, keepdim=True) + _EPS)


def _weighted(squares: Tensor, head: Tensor) -> Tensor:
    return (squares.mean((2, 3)) * head).sum(1)
