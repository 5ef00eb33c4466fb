"""The recognition network that GFPGAN's losses and the metric `Deg.` of VQFR use: ResNet-18 on grey faces.

Reference:
    Deng et al., 2019, "ArcFace", arXiv:1801.07698 (ResNet-18 with improved blocks, `resnet18_110`).
Parity:
    TencentARC/GFPGAN@7552a77 gfpgan/archs/arcface_arch.py (Apache-2.0), `ResNetArcFace` without gates as its
    option files use it, on made weights: 1e-5 abs, see tests/parity/data/recognition.md. Deviations: none.
"""

from dataclasses import dataclass
from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError, ShapeError


class GreyBlock(nn.Module):
    """Two convolutions beside a shortcut; both activations share their slope."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, inputs, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B,inputs,H,W) to (B,outputs,h,w)."""
        inner = self.prelu(self.bn1(self.conv1(self.bn0(x))))
        return self.prelu(self.bn2(self.conv2(inner)) + self.downsample(x))


class GreyResNet(nn.Module):
    """Stem, four stages of two blocks, one matrix over all that is left of the picture."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Settings; the default is the published network.

        Raises:
            ConfigError: if a size is below 1.
        """

        width: int = 64
        """Channels of the stem; the last stage has eight times as many."""
        numbers: int = 512
        """Length of an embedding."""

        def __post_init__(self) -> None:
            if min(self.width, self.numbers) < 1:
                raise ConfigError(f"GreyResNet: width and numbers must be 1 or more, got {self}")

        @classmethod
        def tiny(cls) -> Self:
            """The same depth with four channels; for tests."""
            return cls(width=4, numbers=16)

    SIZE_PX = 128

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.prelu = nn.PReLU()
        self.layer1 = nn.Sequential(GreyBlock(width, width, 1), GreyBlock(width, width, 1))
        self.layer2 = nn.Sequential(GreyBlock(width, 2 * width, 2), GreyBlock(2 * width, 2 * width, 1))
        self.layer3 = nn.Sequential(GreyBlock(2 * width, 4 * width, 2), GreyBlock(4 * width, 4 * width, 1))
        self.layer4 = nn.Sequential(GreyBlock(4 * width, 8 * width, 2), GreyBlock(8 * width, 8 * width, 1))
        self.bn4 = nn.BatchNorm2d(8 * width)
        self.dropout = nn.Dropout(0.5)
        self.fc5 = nn.Linear(8 * width * (self.SIZE_PX // 16) ** 2, config.numbers)
        self.bn5 = nn.BatchNorm1d(config.numbers)

    def forward(self, pixels: Tensor) -> Tensor:
        """Describe.

        Args:
            pixels: (B,1,128,128) float32 in [-1,1], aligned to the FFHQ template.

        Returns:
            (B,512) float32, not normalised.

        Raises:
            ShapeError: if the pixels have another shape.
        """
        if pixels.ndim != 4 or pixels.shape[1:] != (1, self.SIZE_PX, self.SIZE_PX):
            raise ShapeError("grey faces (B,1,128,128)", pixels.shape)
        x = F.max_pool2d(self.prelu(self.bn1(self.conv1(pixels))), 2)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.bn5(self.fc5(self.dropout(self.bn4(x)).flatten(1)))
