"""The face recognition network of dlib: a ResNet with 29 convolutions that describes a face by 128 numbers.

Reference:
    King, 2017, "High Quality Face Recognition with Deep Metric Learning" (network
    dlib_face_recognition_resnet_model_v1); He et al., 2015, "Deep Residual Learning", arXiv:1512.03385.
Parity:
    npm @vladmandic/face-api 1.7.15 (MIT), `src/faceRecognitionNet`: recorded descriptors, 1e-6 abs in
    float32. Deviations: none.
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
    *((1, False),) * 3,
    (2, True),
    *((2, False),) * 3,
    (4, True),
    *((4, False),) * 2,
    (8, True),
    *((8, False),) * 2,
    (8, True),
)


class ScaledConv(nn.Module):
    """A convolution, then a factor and an offset per channel: what is left of batch normalisation."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int) -> None:
        super().__init__()
        # What halves the picture reads no border, the others keep its size.
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=0 if stride == 2 else size // 2)
        self.scale = nn.Parameter(torch.ones(outputs))
        self.shift = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B,inputs,H,W) to (B,outputs,h,w)."""
        return torch.addcmul(self.shift[:, None, None], self.conv(x), self.scale[:, None, None])


class Residual(nn.Module):
    """Two convolutions beside a shortcut, which is averaged over 2 x 2 where the block halves the picture."""

    def __init__(self, inputs: int, outputs: int, halves: bool) -> None:
        super().__init__()
        self.halves = halves
        self.conv1 = ScaledConv(inputs, outputs, 3, 2 if halves else 1)
        self.conv2 = ScaledConv(outputs, outputs, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B,inputs,H,W) to (B,outputs,h,w)."""
        out = self.conv2(F.relu(self.conv1(x)))
        if self.halves:
            x = F.avg_pool2d(x, 2)
            # What is narrower or smaller gets zeros: channels at the end, a last row and a last column.
            x = F.pad(x, (0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))
            out = F.pad(out, (0, x.shape[3] - out.shape[3], 0, x.shape[2] - out.shape[2]))
        return F.relu(out + x)


class DlibResNet(nn.Module):
    """Stem, fourteen residual blocks, the mean over the picture, one matrix."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Settings; the default is the published network.

        Raises:
            ConfigError: if the width is below 1.
        """

        width: int = 32
        """Channels of the stem; the last block has eight times as many."""

        def __post_init__(self) -> None:
            if self.width < 1:
                raise ConfigError(f"DlibResNet: width must be 1 or more, got {self.width}")

        @classmethod
        def tiny(cls) -> Self:
            """The same depth with four channels; for tests."""
            return cls(width=4)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.stem = ScaledConv(3, config.width, 7, 2)
        widths = [config.width] + [config.width * factor for factor, _ in _BLOCKS]
        self.blocks = nn.Sequential(
            *(Residual(widths[i], widths[i + 1], halves) for i, (_, halves) in enumerate(_BLOCKS))
        )
        self.fc = nn.Linear(widths[-1], 128, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Describe.

        Args:
            pixels: (B,3,150,150) float32 RGB, normalised as `facerestore.features.identity` does it.

        Returns:
            (B,128) float32; two pictures of one person lie less than 0.6 apart (L2).
        """
        x = F.max_pool2d(F.relu(self.stem(pixels)), 3, 2)
        return self.fc(self.blocks(x).mean(dim=(2, 3)))
