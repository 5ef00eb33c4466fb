"""Who is it, as ArcFace sees it: embeddings whose directions are compared, of faces in colour or in grey.

What was trained against one of these networks is judged by another: claims about identity are also made with
`facerestore.features.description`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.errors import ShapeError
from facerestore.faces.recognition import ALIGNED_PX, recognition_crop
from facerestore.imaging.range import to_signed
from facerestore.nets.grey_resnet import GreyResNet
from facerestore.nets.iresnet import IResNet
from facerestore.weights.load import load_into
from facerestore.weights.seeded import fill_seeded_norms

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

IR_SE50 = "arcface/ir-se50"
GREY_RESNET18 = "arcface/grey-resnet18"
LUMA = (0.2989, 0.5870, 0.1140)
"""Weights of red, green and blue with which GFPGAN makes faces grey."""
_COUNTER = "num_batches_tracked"


class Embedder(nn.Module):
    """A frozen recognition network: it learns nothing, stays in eval mode, and lets gradients through."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Stay as it is, whatever the module that holds it does."""
        return super().train(False)


class ArcFace(Embedder):
    """IR-SE50 of InsightFace_Pytorch, in RGB.

    Args:
        net: the network, of the layout `insightface`.
        samples: see `facerestore.faces.recognition.recognition_crop`; 4 reaches every pixel with gradients,
            as the area average of pSp's loss does.

    Reference:
        Deng et al., 2019, "ArcFace", arXiv:1801.07698; facexlib `recognition_arcface_ir_se50.pth`.
    Parity:
        The network: see `facerestore.nets.iresnet`. The crop is that of the five-point template; pSp cuts
        rows 70:446 and columns 64:440 of an aligned 512 px face.
    """

    def __init__(self, net: IResNet, samples: int = 4) -> None:
        super().__init__(net)
        self.samples = samples

    @classmethod
    def load(cls, store: "WeightStore") -> Self:
        """Build it with the published weights.

        Raises:
            WeightsError: if the file is not there, damaged, or does not fit.
        """
        state = store.load(IR_SE50)
        net = IResNet(IResNet.Config(layout="insightface"))
        load_recognition(net, state, IR_SE50)
        return cls(net)

    @classmethod
    def tiny(cls) -> Self:
        """A small network with made weights; for tests."""
        net = IResNet(IResNet.Config.tiny("insightface"))
        fill_seeded_norms(net)
        return cls(net)

    def forward(self, faces: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Embed.

        Args:
            faces: (B,3,512,512) float32 in [0,1], aligned to the FFHQ template; of any size with landmarks.
            landmarks: (B,5,2) pixels of the pictures, or None.

        Returns:
            (B,512) float32, not normalised: compare by `cosine_similarity`.

        Raises:
            ShapeError: if the shapes do not fit.
        """
        return self.net(to_signed(recognition_crop(faces, landmarks, samples=self.samples)))


class GreyArcFace(Embedder):
    """ResNet-18 on grey faces, as GFPGAN's loss and the metric `Deg.` of VQFR use it.

    The whole aligned face is made smaller four times, bilinearly without a filter: each new pixel is the mean
    of the middle four of sixteen.

    Args:
        net: the network.

    Reference:
        Deng et al., 2019, "ArcFace", arXiv:1801.07698; Wang et al., 2021, "GFPGAN", arXiv:2101.04061.
    Parity:
        The network: see `facerestore.nets.grey_resnet`. GFPGAN@7552a77 gfpgan/models/gfpgan_model.py,
        `gray_resize_for_identity`: 1e-6 abs. Deviations: none.
    """

    luma: Tensor

    def __init__(self, net: GreyResNet) -> None:
        super().__init__(net)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def load(cls, store: "WeightStore") -> Self:
        """Build it with the published weights.

        Raises:
            WeightsError: if the file is not there, damaged, or does not fit.
        """
        state = store.load(GREY_RESNET18)
        net = GreyResNet(GreyResNet.Config())
        load_recognition(net, state, GREY_RESNET18)
        return cls(net)

    @classmethod
    def tiny(cls) -> Self:
        """A small network with made weights; for tests."""
        net = GreyResNet(GreyResNet.Config.tiny())
        fill_seeded_norms(net)
        return cls(net)

    def forward(self, faces: Tensor) -> Tensor:
        """Embed.

        Args:
            faces: (B,3,512,512) float32 in [0,1], aligned to the FFHQ template.

        Returns:
            (B,512) float32, not normalised: compare by `cosine_similarity`.

        Raises:
            ShapeError: if the faces have another shape.
        """
        if faces.ndim != 4 or faces.shape[1:] != (3, ALIGNED_PX, ALIGNED_PX):
            raise ShapeError("aligned faces (B,3,512,512)", faces.shape)
        grey = (to_signed(faces) * self.luma).sum(dim=1, keepdim=True)
        side = GreyResNet.SIZE_PX
        return self.net(F.interpolate(grey, size=(side, side), mode="bilinear", align_corners=False))


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """How alike the directions of embeddings are.

    Args:
        a: (B,D), of any length.
        b: (B,D).

    Returns:
        (B,) in [-1,1]; exactly 1 for equal ones. The gradient there is 0.

    Raises:
        ShapeError: if the shapes differ.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise ShapeError(f"two embeddings of one shape (B,D), the first {tuple(a.shape)}", b.shape)
    # The same number as a product of directions, and free of its rounding where they agree.
    return 1 - (F.normalize(a) - F.normalize(b)).square().sum(dim=1) / 2


def load_recognition(net: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy every tensor of a published file into a network.

    Only the counters of batch normalisation, which nothing reads in eval mode, may be missing: some copies of
    these files leave them out.

    Raises:
        KeyMismatch: if keys or shapes differ otherwise; then nothing was loaded.
    """
    counters = {key: value for key, value in net.state_dict().items() if key.endswith(_COUNTER)}
    load_into(net, counters | dict(state), source)
