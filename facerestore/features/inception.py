"""What the Inception-v3 of FID says of a picture: 2048 numbers, whose statistics FID compares."""

from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.errors import ShapeError
from facerestore.imaging.range import to_signed
from facerestore.nets.fid_inception import FidInception
from facerestore.weights.load import load_into
from facerestore.weights.seeded import made

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

WEIGHT = "fid-inception"
SIDE_PX = 299
_UNUSED = ("fc.weight", "fc.bias")  # of the classifier


class FidFeatures(nn.Module):
    """Turns pictures into descriptions; differentiable.

    Args:
        net: the network.

    Reference:
        Heusel et al., 2017, arXiv:1706.08500, as pytorch-fid, BasicSR and the NTIRE challenges measure it:
        bilinear to 299 px without antialiasing. (clean-fid resizes otherwise and gives other numbers.)
    Parity:
        See `facerestore.nets.fid_inception`.
    """

    def __init__(self, net: FidInception) -> None:
        super().__init__()
        self.net = net

    @classmethod
    def load(cls, store: "WeightStore") -> Self:
        """Build it with the published weights, frozen and in eval mode.

        Raises:
            WeightsError: if the file is not there, damaged, or does not fit.
        """
        net = FidInception(FidInception.Config())
        state = {
            key: tensor
            for key, tensor in store.load(WEIGHT).items()
            if key not in _UNUSED and not key.endswith("num_batches_tracked")
        }
        load_into(net, state, WEIGHT)
        return cls(net).eval().requires_grad_(False)

    @classmethod
    def tiny(cls) -> Self:
        """128 numbers by made weights; for tests."""
        net = made(lambda: FidInception(FidInception.Config.tiny()))
        for key, tensor in net.state_dict().items():
            if key.endswith("running_var"):
                tensor.fill_(1)
            elif key.endswith("bn.weight"):
                tensor.fill_(2**0.5)  # what a ReLU takes away
        return cls(net).eval()

    @property
    def width(self) -> int:
        """How many numbers describe a picture."""
        return self.net.width

    def forward(self, images: Tensor) -> Tensor:
        """Describe.

        Args:
            images: (B,3,H,W) float32 in [0,1].

        Returns:
            (B,width) float32, >= 0.

        Raises:
            ShapeError: if they are no pictures.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ShapeError("pictures (B,3,H,W)", images.shape)
        resized = F.interpolate(images, (SIDE_PX, SIDE_PX), mode="bilinear", align_corners=False)
        return self.net(to_signed(resized))


def feature_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each number of descriptions.

    Args:
        features: (N,D).

    Returns:
        (D,) and (D,), the variance unbiased; of a single description it is 0.

    Raises:
        ShapeError: if there are none.
    """
    if features.ndim != 2 or not len(features):
        raise ShapeError("descriptions (N,D), one or more", features.shape)
    variance, mean = torch.var_mean(features, dim=0, correction=int(len(features) > 1))
    return mean, variance
