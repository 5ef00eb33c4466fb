"""FaceRes: a MobileNet that describes a face by 1,024 numbers; it judges, and nothing is trained against it.

Reference:
    Howard et al., 2017, "MobileNets", arXiv:1704.04861; Savchenko, 2019, "Efficient facial representations
    for age, gender and identity recognition in organizing photo albums using multi-output ConvNet", PeerJ
    Computer Science 5:e197, github HSE-asavchenko/HSE_FaceRec_tf.
Parity:
    npm @vladmandic/human 3.3.6 (MIT), `models/faceres` in TensorFlow.js: recorded descriptors, 1e-5 abs in
    float32. Deviations: the heads that guess age and gender are left out.
"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError

# Of each block: its width in units of the stem's, and whether it halves the picture.
_BLOCKS = (
    (2, False),
    (4, True),
    (4, False),
    (8, True),
    (8, False),
    (16, True),
    *((16, False),) * 5,
    (32, True),
    (32, False),
)


class Separable(nn.Module):
    """A filter for each channel alone, then a mixture of channels at each pixel.

    What is left of batch normalisation is a factor and an offset after the first, and the second's bias.
    """

    def __init__(self, inputs: int, outputs: int, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        stride, padding = (2, 0) if halves else (1, 1)
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding, groups=inputs, bias=False)
        self.scale = nn.Parameter(torch.ones(inputs))
        self.shift = nn.Parameter(torch.zeros(inputs))
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,inputs,H,W) to (B,outputs,h,w)."""
        x = self.depthwise(_padded(x) if self.halves else x)
        x = F.relu6(torch.addcmul(self.shift[:, None, None], x, self.scale[:, None, None]))
        return F.relu6(self.pointwise(x))


class FaceRes(nn.Module):
    """Stem, thirteen separable convolutions, the mean over the picture."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Settings; the default is the published network.

        Raises:
            ConfigError: if the width is below 1.
        """

        width: int = 32
        """Channels of the stem; the descriptor has 32 times as many numbers."""

        def __post_init__(self) -> None:
            if self.width < 1:
                raise ConfigError(f"FaceRes: width must be 1 or more, got {self.width}")

        @classmethod
        def tiny(cls) -> Self:
            """The same depth with two channels; for tests."""
            return cls(width=2)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(3, config.width, 3, 2)
        widths = [config.width] + [config.width * factor for factor, _ in _BLOCKS]
        self.blocks = nn.Sequential(
            *(Separable(widths[i], widths[i + 1], halves) for i, (_, halves) in enumerate(_BLOCKS))
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Describe.

        Args:
            pixels: (B,3,224,224) float32, as `facerestore.features.description` prepares them.

        Returns:
            (B,1024) float32, each in [0,6].
        """
        return self.blocks(F.relu6(self.stem(_padded(pixels)))).mean(dim=(2, 3))


def _padded(x: Tensor) -> Tensor:
    """What halves an even picture in TensorFlow reads a border at the bottom and the right only."""
    return F.pad(x, (0, 1, 0, 1))
