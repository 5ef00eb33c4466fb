"""What a metric is: a card that says which variant it is, and a function from pictures to numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from facerestore.core.errors import ShapeError
from facerestore.core.state import check_images

Compares = Literal["nothing", "sharp", "person"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a number is; it stands in every report.

    Attributes:
        name: says the variant: `niqe-basicsr`, `lpips-vgg`.
        direction: which is better.
        compares: the restored picture with nothing, with the sharp one, or with one of the same person.
        how: variant, preprocessing, range and source, in a sentence or two.
        weights: names of the weights that it needs.
        unit: of the number, if it has one.
        package: that computes it, where that is not this one; its version is part of the number.
        batched: whether several pictures at once get the numbers that each gets alone, within 1e-4.
    """

    name: str
    direction: Literal["higher", "lower"]
    compares: Compares
    how: str
    weights: tuple[str, ...] = ()
    unit: str = ""
    package: str = ""
    batched: bool = True


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that is ready.

    Attributes:
        card: what it is.
        measure: `(pred, reference, points)` to (B,), the pictures checked.
    """

    card: Card
    measure: Callable[[Tensor, Tensor | None, Tensor | None], Tensor]

    def __call__(
        self, pred: Tensor, reference: Tensor | None = None, *, points: Tensor | None = None
    ) -> Tensor:
        """Measure.

        Args:
            pred: restored pictures (B,3,H,W) float32 in [0,1].
            reference: what they are compared with, the same shape; None for a metric that compares nothing.
            points: (B,5,2) five points of the faces in pixels, the same for both pictures; identity puts
                faces upright by them. None for aligned faces (B,3,512,512).

        Returns:
            (B,).

        Raises:
            ShapeError: if the shapes do not fit, or a reference is missing.
            RangeError: if values are not finite, or outside [0,1].
        """
        check_images(pred, "pred")
        if self.card.compares == "nothing":
            return self.measure(pred, None, None)
        if reference is None or reference.shape != pred.shape:
            shape = () if reference is None else reference.shape
            raise ShapeError(f"{self.card.name} of two pictures (B,3,H,W), one {tuple(pred.shape)}", shape)
        return self.measure(pred, check_images(reference, "reference"), points)
