"""A second, independent opinion on who it is, for judging only: nothing is ever trained against it.

The network was made by other people, on other data, for another purpose than those of
`facerestore.features.identity` and `facerestore.features.arcface`. What those are losses or guards for is
judged by this one. Therefore it lets no gradient through, and no module of losses may import it.
"""

from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.errors import ShapeError
from facerestore.features.arcface import cosine_similarity
from facerestore.nets.faceres import FaceRes
from facerestore.weights.load import load_into

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

WEIGHT = "face-description"
SAME_PERSON_DISTANCE = 0.4
"""Distance of two descriptions below which they count as one person.

Measured on 585 portraits of 512 members of Congress (official portraits of the 118th, and voteview's), sharp,
aligned, those of 256 px enlarged. 73 people have two pictures; in 38 of these pairs they are visibly two
photographs, sorted out by eye, which lie 0.19 apart on average and 0.36 at most. Of the 170,747 pairs of
different people, which lie 0.59 apart on average (standard deviation 0.075), 0.7 % are below 0.4, and 0.09 %
below 0.35. On the same pairs the network of `facerestore.features.identity` has 0.6 % below its threshold,
and none of one person above.
"""
FACE_PX = 512
CHIP_ROWS = slice(88, 512)
CHIP_COLUMNS = slice(47, 471)
"""The part of an FFHQ-aligned 512 px face that the network looks at: the whole head."""
CHIP_PX = 224
MEAN_BGR = (103.939, 116.779, 123.68)


class IndependentDescriptor(nn.Module):
    """Turns aligned faces into descriptions that judge a result. Never trained against.

    Human cuts out a square of 1.4 times the box that its detector finds: of 200 aligned faces in the median
    columns 41 to 476.5 and rows 88 to 523. The chip here is the largest square of it that lies in the face.

    Args:
        net: the description network.

    Reference:
        Savchenko, 2019, PeerJ Computer Science 5:e197; preprocessing: HSE_FaceRec_tf@53b11e1
        age_gender_identity/facial_analysis.py.
    Parity:
        The network: see `facerestore.nets.faceres`. Deviations from Human 3.3.6: channels are BGR less the
        means of ImageNet, as its author gives them to the network, where Human gives it RGB as it is; the
        chip is brought to 224 px in one step with a filter, where Human goes without one by way of 192 px.
        On the pairs of `SAME_PERSON_DISTANCE` Human's way has 2 of 38 of one person and 1.4 % of different
        people on the wrong side of 0.4; the author's channels make that none and 0.6 %. The one step moves a
        description by 0.02 on average, and makes the 0.6 % to 0.7 %.
    """

    mean: Tensor

    def __init__(self, net: FaceRes) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(MEAN_BGR).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def load(cls, store: "WeightStore") -> Self:
        """Build it with the shipped weights, frozen and in eval mode.

        Raises:
            WeightsError: if the file is not there, damaged, or does not fit.
        """
        net = FaceRes(FaceRes.Config())
        load_into(net, store.load(WEIGHT), WEIGHT)
        return cls(net).eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, faces: Tensor) -> Tensor:
        """Describe.

        Args:
            faces: (B,3,512,512) float32 in [0,1], aligned to the FFHQ template.

        Returns:
            (B,1024) float32, each in [0,6], without a gradient: compare by `description_distance`.

        Raises:
            ShapeError: if the faces have another shape.
        """
        if faces.ndim != 4 or faces.shape[1:] != (3, FACE_PX, FACE_PX):
            raise ShapeError("aligned faces (B,3,512,512)", faces.shape)
        chips = faces[:, :, CHIP_ROWS, CHIP_COLUMNS]
        chips = F.interpolate(chips, size=(CHIP_PX, CHIP_PX), mode="bilinear", antialias=True)
        return self.net(chips.flip(1) * 255.0 - self.mean)


def description_distance(a: Tensor, b: Tensor) -> Tensor:
    """Cosine distance of descriptions.

    Args:
        a: (B,1024).
        b: (B,1024).

    Returns:
        (B,) in [0,1]; below `SAME_PERSON_DISTANCE` it is the same person.

    Raises:
        ShapeError: if the shapes differ.
    """
    return 1 - cosine_similarity(a, b)
