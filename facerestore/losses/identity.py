"""Losses that keep the person who is in the picture.

A network that is a loss here judges nothing any more: results are judged by another, and by the one of
`facerestore.features.description`, which no loss may use.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.errors import ConfigError
from facerestore.features.arcface import cosine_similarity
from facerestore.features.identity import FaceDescriptor, identity_distance

Embed = Callable[[Tensor], Tensor]
"""Aligned faces (B,3,512,512) in [0,1] to embeddings (B,D): `ArcFace`, `GreyArcFace`, `AdaFace`."""


class IdentityLoss(nn.Module):
    """One less the cosine of the embeddings, `1 - cos(E(pred), E(target))`.

    Args:
        embed: a frozen network that embeds aligned faces. OSDFace and MiPlusCV say ArcFace; a public trainer
            of OSDFace takes `GreyArcFace` with weight 0.1, pSp and others IR-SE50.

    Reference:
        Wang et al., 2025, "OSDFace", arXiv:2411.17163, L_ID; Richardson et al., 2021, "pSp",
        arXiv:2008.00951, L_ID.
    Parity:
        torch `CosineEmbeddingLoss` per face: 1e-6 abs. Deviations: none.
    """

    def __init__(self, embed: Embed) -> None:
        super().__init__()
        self.embed = embed

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare.

        Args:
            pred: (B,3,512,512) float32 in [0,1], aligned to the FFHQ template.
            target: the same shape; no gradient goes to it.

        Returns:
            (B,) float32 in [0,2], 0 for equal pictures.

        Raises:
            ShapeError: if a shape differs.
        """
        return 1 - cosine_similarity(self.embed(pred), self.embed(target.detach()))


class IdentityFloor(nn.Module):
    """How far the cosine of the embeddings falls below a floor, `max(0, floor - cos(E(pred), E(target)))`.

    Nothing is asked of faces that are like enough: a guard beside losses that pull another way.

    Args:
        embed: a frozen network that embeds aligned faces.
        floor: cosine, in (-1,1); the NTIRE challenges fail a face of AdaFace's IR-50 below 0.3 to 0.6.

    Raises:
        ConfigError: if the floor is not in (-1,1).

    Reference:
        A hinge loss; the floors are those of the NTIRE 2025 and 2026 challenges on real-world face
        restoration, arXiv:2504.14600.
    """

    def __init__(self, embed: Embed, floor: float) -> None:
        super().__init__()
        if not -1 < floor < 1:
            raise ConfigError(f"IdentityFloor: floor must be in (-1,1), got {floor}")
        self.embed = embed
        self.floor = floor

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare.

        Args:
            pred: (B,3,512,512) float32 in [0,1], aligned to the FFHQ template.
            target: the same shape, the true face or the degraded one; no gradient goes to it.

        Returns:
            (B,) float32 >= 0, 0 from the floor upwards.

        Raises:
            ShapeError: if a shape differs.
        """
        return F.relu(self.floor - cosine_similarity(self.embed(pred), self.embed(target.detach())))


class DescriptorLoss(nn.Module):
    """Distance of the descriptors of the recognition network that ships, for training offline.

    Args:
        descriptor: see `facerestore.features.identity`. The same network reports identity to users and guards
            it; what is trained with this loss is judged by another.

    Reference:
        King, 2017, dlib_face_recognition_resnet_model_v1, which was trained to this distance.
    """

    def __init__(self, descriptor: FaceDescriptor) -> None:
        super().__init__()
        self.descriptor = descriptor

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare.

        Args:
            pred: (B,3,512,512) float32 in [0,1], aligned to the FFHQ template.
            target: the same shape; no gradient goes to it.

        Returns:
            (B,) float32 >= 0, 0 for equal pictures; below 0.6 it is the same person.

        Raises:
            ShapeError: if a shape differs.
        """
        return identity_distance(self.descriptor(pred), self.descriptor(target.detach()))
