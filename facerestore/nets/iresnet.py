"""The improved residual networks of face recognition, in the two layouts in which they are published.

`insightface`: of InsightFace_Pytorch, in which the IR-SE50 lies that facexlib, pSp and many losses use.
`adaface`: of AdaFace, whose IR-50 measures identity in the NTIRE challenges. Names of tensors look alike, the
blocks differ, and neither's weights fit the other.

Reference:
    Deng et al., 2019, "ArcFace", arXiv:1801.07698; Hu et al., 2018, "Squeeze-and-Excitation Networks",
    arXiv:1709.01507; Kim, Jain, Liu, 2022, "AdaFace", arXiv:2204.00964.
Parity:
    facexlib@260620a facexlib/recognition/arcface_arch.py (Apache-2.0) and mk-minchul/AdaFace@c60eaa7 net.py
    (MIT) on made weights: 1e-4 of the length of an embedding, see tests/parity/data/recognition.md.
    Deviations: embeddings are returned as they leave the last layer, their length not yet divided out.
"""

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError, ShapeError

Layout = Literal["insightface", "adaface"]
_WIDTHS = (1, 2, 4, 8)  # of each stage, in units of the stem's
_SQUEEZE = 16  # how many times fewer channels a gate has inside


class Gate(nn.Module):
    """Weighs channels by what the whole picture shows (squeeze and excitation)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // _SQUEEZE, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // _SQUEEZE, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B,C,H,W) to the same shape."""
        mean = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(mean))))


class Block(nn.Module):
    """Two convolutions beside a shortcut; the second halves the picture where the stride is 2."""

    def __init__(self, inputs: int, outputs: int, stride: int, layout: Layout) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)  # every second pixel
        if inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(projection, nn.BatchNorm2d(outputs))
        between = [nn.BatchNorm2d(outputs)] if layout == "adaface" else []
        after = [Gate(outputs)] if layout == "insightface" else []
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False),
            *between,
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            *after,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B,inputs,H,W) to (B,outputs,h,w)."""
        return self.res_layer(x) + self.shortcut_layer(x)


class IResNet(nn.Module):
    """Stem, four stages of blocks, one matrix over all that is left of the picture."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Settings; the defaults are those of the 50 layers that both projects publish.

        Raises:
            ConfigError: if there are not four stages, or a size is too small.
        """

        layout: Layout
        """Whose blocks, and whose names of tensors."""
        depths: tuple[int, ...] = (3, 4, 14, 3)
        """Blocks of each stage; of the 101 layers they are 3, 13, 30 and 3."""
        width: int = 64
        """Channels of the stem, a multiple of 16; the last stage has eight times as many."""
        numbers: int = 512
        """Length of an embedding."""

        def __post_init__(self) -> None:
            if len(self.depths) != len(_WIDTHS) or min(self.depths) < 1:
                raise ConfigError(f"IResNet: depths must be four numbers of 1 or more, got {self.depths}")
            if self.width < 1 or self.width % _SQUEEZE:
                raise ConfigError(f"IResNet: width must be a multiple of {_SQUEEZE}, got {self.width}")
            if self.numbers < 1:
                raise ConfigError(f"IResNet: numbers must be 1 or more, got {self.numbers}")

        @classmethod
        def tiny(cls, layout: Layout = "insightface") -> Self:
            """One block a stage, sixteen channels; for tests."""
            return cls(layout=layout, depths=(1, 1, 1, 1), width=16, numbers=16)

    SIZE_PX = 112

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.PReLU(width)
        )
        blocks: list[Block] = []
        inputs = width
        for factor, depth in zip(_WIDTHS, config.depths, strict=True):
            for index in range(depth):
                blocks.append(Block(inputs, factor * width, 1 if index else 2, config.layout))
                inputs = factor * width
        self.body = nn.Sequential(*blocks)
        left_px = self.SIZE_PX // 2 ** len(_WIDTHS)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Dropout(0.4),
            nn.Flatten(),
            nn.Linear(inputs * left_px**2, config.numbers),
            nn.BatchNorm1d(config.numbers, affine=config.layout == "insightface"),
        )

    def forward(self, pixels: Tensor) -> Tensor:
        """Describe.

        Args:
            pixels: (B,3,112,112) float32 in [-1,1], aligned to the ArcFace template; RGB in the layout of
                InsightFace_Pytorch, BGR in that of AdaFace.

        Returns:
            (B,512) float32, not normalised. Directions are compared; AdaFace's length says how good the
            picture is.

        Raises:
            ShapeError: if the pixels have another shape.
        """
        if pixels.ndim != 4 or pixels.shape[1:] != (3, self.SIZE_PX, self.SIZE_PX):
            raise ShapeError("faces (B,3,112,112)", pixels.shape)
        return self.output_layer(self.body(self.input_layer(pixels)))
