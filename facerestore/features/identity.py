"""Who is it: 128 numbers per face, and how far two faces lie apart.

Below a distance of 0.6 two pictures count as one person, by the convention of the network's author. It is a
figure about pictures, and no evidence of who somebody is.
"""

from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.errors import ShapeError
from facerestore.nets.dlib_resnet import DlibResNet
from facerestore.weights.load import load_into

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

WEIGHT = "face-recognition"
SAME_PERSON_DISTANCE = 0.6
"""L2 distance of two descriptors below which they count as one person (dlib's convention)."""
FACE_PX = 512
CHIP_ROWS = slice(127, 487)
CHIP_COLUMNS = slice(79, 439)
"""The part of an FFHQ-aligned 512 px face that the network looks at: brows to chin and a quarter more."""
CHIP_PX = 150
MEAN_RGB = (122.782, 117.001, 104.298)
DIVISOR = 256.0
"""dlib, which trained the network, divides by 256; face-api, from which the weights come, by 255. On five
portraits that moves a descriptor by 0.001 and a distance by 0.0002."""


class FaceDescriptor(nn.Module):
    """Turns aligned faces into descriptors; differentiable, so that it can serve as a loss.

    Args:
        net: the recognition network.

    Reference:
        King, 2017, dlib_face_recognition_resnet_model_v1; normalisation: dlib `input_rgb_image_sized`.
    Parity:
        The network and the normalisation: see `facerestore.nets.dlib_resnet`. The chip is cut from the FFHQ
        alignment instead of dlib's 68 landmarks.
    """

    mean: Tensor

    def __init__(self, net: DlibResNet) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def load(cls, store: "WeightStore") -> Self:
        """Build it with the shipped weights, frozen and in eval mode.

        Raises:
            WeightsError: if the file is not there, damaged, or does not fit.
        """
        net = DlibResNet(DlibResNet.Config())
        load_into(net, store.load(WEIGHT), WEIGHT)
        return cls(net).eval().requires_grad_(False)

    def forward(self, faces: Tensor) -> Tensor:
        """Describe.

        Args:
            faces: (B,3,512,512) float32 in [0,1], aligned to the FFHQ template.

        Returns:
            (B,128) float32.

        Raises:
            ShapeError: if the faces have another shape.
        """
        if faces.ndim != 4 or faces.shape[1:] != (3, FACE_PX, FACE_PX):
            raise ShapeError("aligned faces (B,3,512,512)", faces.shape)
        chips = faces[:, :, CHIP_ROWS, CHIP_COLUMNS]
        # Antialiased bilinear (a triangle of the width of the reduction), what Pillow calls BILINEAR.
        chips = F.interpolate(chips, size=(CHIP_PX, CHIP_PX), mode="bilinear", antialias=True)
        return self.net((chips * 255.0 - self.mean) / DIVISOR)


def identity_distance(a: Tensor, b: Tensor) -> Tensor:
    """L2 distance of descriptors.

    Args:
        a: (B,128).
        b: (B,128).

    Returns:
        (B,) >= 0; below `SAME_PERSON_DISTANCE` it is the same person. The gradient at 0 is 0.

    Raises:
        ShapeError: if the shapes differ.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ShapeError(f"two descriptors of one shape (B,128), the first {tuple(a.shape)}", b.shape)
    return torch.linalg.vector_norm(a - b, dim=1)


def identity_similarity(distance: Tensor) -> Tensor:
    """A distance as a similarity: 1 at distance 0, 0.5 at `SAME_PERSON_DISTANCE`, 0 at twice that and beyond.

    Args:
        distance: any shape, >= 0.

    Returns:
        The same shape, in [0,1].
    """
    return (1 - distance / (2 * SAME_PERSON_DISTANCE)).clamp(0, 1)
