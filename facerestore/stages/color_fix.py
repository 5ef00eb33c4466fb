"""Keep the colours of the input, and keep grey pictures grey."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from facerestore.core.precision import FP32, Target
from facerestore.core.state import RestorationState
from facerestore.imaging.color_fix import adain_color_fix, is_grey, luma, wavelet_color_fix
from facerestore.stages.base import ImageStage, StageConfig, StageContract

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore


class ColorFix(ImageStage):
    """Move the low frequencies, or the statistics, of the input into the estimate."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(StageConfig):
        """Settings."""

        method: Literal["wavelet", "adain", "none"] = "wavelet"
        """`wavelet`: lowest band of the input; `adain`: its mean and deviation per channel."""
        keep_grey: bool = True
        """Whether an input without colour gives an output without colour."""

        def contract(self) -> StageContract:
            """Reads the input beside the estimate."""
            return StageContract(reads=frozenset({"lq", "image"}))

        def build(self, store: "WeightStore", target: Target = FP32) -> "ColorFix":
            """Nothing to load."""
            del store, target
            return ColorFix(self)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config: ColorFix.Config = config

    def restore(self, image: torch.Tensor, state: RestorationState) -> torch.Tensor:
        """(B,3,H,W) to the same, clamped to [0,1] by the base class."""
        if self.config.method == "wavelet":
            image = wavelet_color_fix(image, state.lq)
        elif self.config.method == "adain":
            image = adain_color_fix(image, state.lq)
        if self.config.keep_grey:
            grey = is_grey(state.lq)
            if bool(grey.any()):
                image = torch.where(grey.view(-1, 1, 1, 1), luma(image.clamp(0, 1)), image)
        return image
