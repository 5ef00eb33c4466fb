"""DINOv3's ConvNeXt as a frozen eye: three maps of a picture, for a distance and for a discriminator."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from facerestore.core.errors import ShapeError
from facerestore.nets.convnext import ConvNeXt, Size, published_state
from facerestore.weights.load import load_into
from facerestore.weights.seeded import fill_seeded

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

WEIGHTS = "dinov3-convnext-"
"""The weights are called so, followed by their size."""
SMALLEST_PX = 16
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class DinoV3ConvNeXt(nn.Module):
    """Describes pictures; frozen, and differentiable with respect to them.

    Args:
        net: the network; it is frozen and put into eval mode.

    Reference:
        Simeoni et al., 2025, "DINOv3", arXiv:2508.10104; as OMGSR uses it (wuer5/OMGSR@8996613b,
        `dinov3_gan/`), whose sizes other than large load the weights of the large one by mistake.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, net: ConvNeXt) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        for name, values in (("mean", IMAGENET_MEAN), ("deviation", IMAGENET_DEVIATION)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def load(cls, store: "WeightStore", size: Size = "large") -> Self:
        """Build it with published weights, which are the user's to fetch.

        Raises:
            ConfigError: if there is no such size.
            WeightsError: if the file is not there, damaged, or of another size.
        """
        net = ConvNeXt(ConvNeXt.Config.of(size))
        load_into(net, published_state(store.load(f"{WEIGHTS}{size}")), f"{WEIGHTS}{size}")
        return cls(net)

    @classmethod
    def tiny(cls) -> Self:
        """A small one with made weights; for tests."""
        net = ConvNeXt(ConvNeXt.Config.tiny())
        fill_seeded(net)
        with torch.no_grad():  # gains of about zero would hide every layer
            for name, tensor in net.named_parameters():
                if tensor.ndim == 1 and not name.endswith("bias"):
                    tensor.add_(1)
        return cls(net)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each map."""
        return self.net.config.widths

    def train(self, mode: bool = True) -> Self:
        """It stays in eval mode, whatever is done to what it is part of."""
        return super().train(False)

    def forward(self, images: Tensor, between: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
        """Describe.

        Args:
            images: (B,3,H,W) float32 in [0,1], 16 px or more; what an augmentation moved outside is allowed.
            between: done to each map before it is returned and before the next stage reads it.

        Returns:
            (B,widths[i],H / 4 / 2^i,W / 4 / 2^i) for i of 0, 1, 2.

        Raises:
            ShapeError: if the images have another shape.
        """
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < SMALLEST_PX:
            raise ShapeError(f"images (B,3,H,W) of {SMALLEST_PX} px or more", images.shape)
        return self.net((images - self.mean) / self.deviation, between)
