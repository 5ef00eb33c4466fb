"""Who is it, as AdaFace sees it: the embedding by which the NTIRE challenges measure identity."""

from typing import TYPE_CHECKING, Literal, Self

from torch import Tensor

from facerestore.faces.recognition import recognition_crop
from facerestore.features.arcface import Embedder, load_recognition
from facerestore.imaging.range import to_signed
from facerestore.nets.iresnet import IResNet
from facerestore.weights.seeded import fill_seeded_norms

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

DEPTHS = {50: (3, 4, 14, 3), 101: (3, 13, 30, 3)}


class AdaFace(Embedder):
    """IR-50 or IR-101 of AdaFace; the challenges use the former, trained on MS1MV2.

    Channels are BGR inside, in [-1,1]; to give this network RGB lowers similarities without a word.

    Args:
        net: the network, of the layout `adaface`.
        samples: see `facerestore.faces.recognition.recognition_crop`; 1 is what the challenges do, 4 reaches
            every pixel with gradients.

    Reference:
        Kim, Jain, Liu, 2022, "AdaFace: Quality Adaptive Margin for Face Recognition", arXiv:2204.00964.
    Parity:
        The network: see `facerestore.nets.iresnet`. The crop: see `facerestore.faces.recognition`. The
        original rounds crops to 8 bits; these stay as they are.
    """

    def __init__(self, net: IResNet, samples: int = 1) -> None:
        super().__init__(net)
        self.samples = samples

    @classmethod
    def load(cls, store: "WeightStore", layers: Literal[50, 101] = 50) -> Self:
        """Build it with the published weights.

        Raises:
            WeightsError: if the file is not there, damaged, or does not fit.
        """
        weight = f"adaface/ir{layers}"
        state = store.load(weight)
        net = IResNet(IResNet.Config(layout="adaface", depths=DEPTHS[layers]))
        load_recognition(net, state, weight)
        return cls(net)

    @classmethod
    def tiny(cls) -> Self:
        """A small network with made weights; for tests."""
        net = IResNet(IResNet.Config.tiny("adaface"))
        fill_seeded_norms(net)
        return cls(net)

    def forward(self, faces: Tensor, landmarks: Tensor | None = None) -> Tensor:
        """Embed.

        Args:
            faces: (B,3,512,512) float32 in [0,1], aligned to the FFHQ template; of any size with landmarks.
            landmarks: (B,5,2) pixels of the pictures, or None.

        Returns:
            (B,512) float32, not normalised: directions are compared by
            `facerestore.features.arcface.cosine_similarity`, and the longer one is, the better the picture.

        Raises:
            ShapeError: if the shapes do not fit.
        """
        crops = recognition_crop(faces, landmarks, samples=self.samples)
        return self.net(to_signed(crops.flip(1)))
