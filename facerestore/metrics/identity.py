"""Is it still the same person? Similarities of descriptions by several networks, each under its name."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from facerestore.core.errors import ShapeError
from facerestore.faces.align import align
from facerestore.faces.similarity import similarity_matrix
from facerestore.faces.templates import FFHQ_512
from facerestore.features.adaface import AdaFace
from facerestore.features.arcface import ArcFace, GreyArcFace, cosine_similarity
from facerestore.features.description import SAME_PERSON_DISTANCE as _DESCRIPTION_DISTANCE
from facerestore.features.description import IndependentDescriptor, description_distance
from facerestore.features.identity import FaceDescriptor, identity_distance, identity_similarity
from facerestore.metrics.perceptual import Measure

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

SAME_PERSON = {"identity-recognition": 0.5, "identity-description": 1 - _DESCRIPTION_DISTANCE}
"""Similarity below which a stand-in takes two faces for two people; see `features.identity` and
`features.description` for the pairs that they were measured on. AdaFace's belong to the protocols."""


def _compared(describe: Callable[[Tensor, Tensor | None], Tensor], compare: Callable[..., Tensor]) -> Measure:
    """A measure of what a network says of both faces, put upright by the same points."""

    def measure(pred: Tensor, reference: Tensor | None, points: Tensor | None) -> Tensor:
        assert reference is not None  # `Metric` has seen to it
        return compare(describe(pred, points), describe(reference, points))

    return measure


def adaface(store: "WeightStore", device: torch.device) -> Measure:
    """As the NTIRE challenges measure: 112 px, one bilinear sample a pixel, BGR."""
    return _compared(AdaFace.load(store).to(device), cosine_similarity)


def arcface(store: "WeightStore", device: torch.device) -> Measure:
    """IR-SE50 ArcFace in RGB."""
    return _compared(ArcFace.load(store).to(device), cosine_similarity)


def arcface_degrees(store: "WeightStore", device: torch.device) -> Measure:
    """The angle between descriptions by GFPGAN's grey ResNet-18 of the whole aligned face."""
    net = GreyArcFace.load(store).to(device)

    def degrees(a: Tensor, b: Tensor) -> Tensor:
        return torch.rad2deg(torch.arccos(cosine_similarity(a, b).double().clamp(-1, 1)))

    return _compared(lambda faces, points: net(faces), degrees)


def recognition(store: "WeightStore", device: torch.device) -> Measure:
    """The shipped recognition network, its distance as a similarity: 0.5 at its threshold."""
    net = FaceDescriptor.load(store).to(device)
    return _compared(
        lambda faces, points: net(aligned(faces, points)),
        lambda a, b: identity_similarity(identity_distance(a, b)),
    )


def description(store: "WeightStore", device: torch.device) -> Measure:
    """The independent network that nothing is trained against."""
    net = IndependentDescriptor.load(store).to(device)
    return _compared(
        lambda faces, points: net(aligned(faces, points)), lambda a, b: 1 - description_distance(a, b)
    )


def aligned(pictures: Tensor, points: Tensor | None) -> Tensor:
    """Faces (B,3,512,512) on the FFHQ template, cut out by five points (B,5,2), or as they are.

    Raises:
        ShapeError: if there are no points, and the pictures are not 512 x 512.
    """
    if points is None:
        if pictures.shape[2:] != (512, 512):
            raise ShapeError("aligned faces (B,3,512,512)", pictures.shape, "Else give their five points.")
        return pictures
    matrices = similarity_matrix(points.cpu().double(), FFHQ_512)
    crops = [align(one[None], matrix[None]) for one, matrix in zip(pictures, matrices, strict=True)]
    return torch.cat(crops).clamp(0, 1)
