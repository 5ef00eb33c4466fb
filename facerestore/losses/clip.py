"""How far CLIP thinks two pictures apart."""

from typing import TYPE_CHECKING, Self

from torch import Tensor, nn

from facerestore.features.clip import ClipImage
from facerestore.imaging.pairs import picture_pair

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore


class ClipLoss(nn.Module):
    """1 - cosine of CLIP's descriptions of two pictures.

    Args:
        clip: what describes them.

    Reference:
        HONORAICamera, NTIRE 2026, arXiv:2604.10532, lists a CLIP loss without an equation. Our reading: of
        the pictures alone, no text, by ViT-L/14.
    """

    def __init__(self, clip: ClipImage) -> None:
        super().__init__()
        self.clip = clip

    @classmethod
    def load(cls, store: "WeightStore") -> Self:
        """Build it with the published weights, frozen and in eval mode.

        Raises:
            WeightsError: if the folder is not there, damaged, or does not fit.
        """
        return cls(ClipImage.load(store)).eval()

    @classmethod
    def tiny(cls) -> Self:
        """With made weights; for tests."""
        return cls(ClipImage.tiny()).eval()

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Compare.

        Args:
            pred: (B,3,H,W) float32 in [0,1].
            target: the same shape.

        Returns:
            (B,) float32 in [0,2], computed as half the squared distance of two unit vectors: exactly 0 for
            equal pictures.

        Raises:
            ShapeError: if they are no pictures, or their shapes differ.
        """
        pred, target = picture_pair(pred, target)
        return (self.clip(pred) - self.clip(target)).square().sum(1) / 2
