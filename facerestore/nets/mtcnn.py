"""The three networks of MTCNN, a cascade that finds faces and five points on each.

Reference:
    Zhang, Zhang, Li, Qiao, 2016, "Joint Face Detection and Alignment Using Multitask Cascaded Convolutional
    Networks", IEEE Signal Processing Letters 23(10), arXiv:1604.02878, Figure 2.
Parity:
    PyPI facenet-pytorch 2.6.0 (MIT), `models/mtcnn.py`: the same state-dict keys, outputs equal to 1e-5.
    Deviations: the names and the order of what `forward` returns.

All of them take pixels as `(value_in_0_255 - 127.5) / 128` and were trained in fp32.
"""

import torch
import torch.nn.functional as F
from torch import nn


class PNet(nn.Module):
    """Proposal network: slides a 12 px window over a picture in steps of 2 px."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 3)
        self.prelu1 = nn.PReLU(10)
        self.conv2 = nn.Conv2d(10, 16, 3)
        self.prelu2 = nn.PReLU(16)
        self.conv3 = nn.Conv2d(16, 32, 3)
        self.prelu3 = nn.PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Score every window.

        Args:
            pixels: (B,3,H,W) in [-1,1), H and W at least 12.

        Returns:
            Probability of a face (B,h,w), and the corrections (B,4,h,w) of the window's left, top, right and
            bottom edge in units of its side; window (i,j) starts at pixel (2i,2j).
        """
        x = _halve(self.prelu1(self.conv1(pixels)))
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_1(x).softmax(dim=1)[:, 1], self.conv4_2(x)


class RNet(nn.Module):
    """Refinement network: sorts out and corrects candidates seen at 24 px."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 28, 3)
        self.prelu1 = nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(28, 48, 3)
        self.prelu2 = nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(48, 64, 2)
        self.prelu3 = nn.PReLU(64)
        self.dense4 = nn.Linear(576, 128)
        self.prelu4 = nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Score candidates.

        Args:
            pixels: (B,3,24,24) in [-1,1).

        Returns:
            Probability of a face (B,), and corrections (B,4) as in `PNet.forward`.
        """
        x = self.pool1(self.prelu1(self.conv1(pixels)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu3(self.conv3(x))
        x = self.prelu4(self.dense4(_flatten(x)))
        return self.dense5_1(x).softmax(dim=1)[:, 1], self.dense5_2(x)


class ONet(nn.Module):
    """Output network: decides on candidates seen at 48 px and marks five points."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.prelu1 = nn.PReLU(32)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.prelu2 = nn.PReLU(64)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(64, 64, 3)
        self.prelu3 = nn.PReLU(64)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4 = nn.Conv2d(64, 128, 2)
        self.prelu4 = nn.PReLU(128)
        self.dense5 = nn.Linear(1152, 256)
        self.prelu5 = nn.PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Score candidates and mark their points.

        Args:
            pixels: (B,3,48,48) in [-1,1).

        Returns:
            Probability of a face (B,); corrections (B,4) as in `PNet.forward`; points (B,5,2), x then y, in
            units of the window's side: the eye on the left of the picture, the other, nose, mouth corners.
        """
        x = self.pool1(self.prelu1(self.conv1(pixels)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.pool3(self.prelu3(self.conv3(x)))
        x = self.prelu4(self.conv4(x))
        x = self.prelu5(self.dense5(_flatten(x)))
        points = self.dense6_3(x).unflatten(1, (2, 5)).transpose(1, 2)
        return self.dense6_1(x).softmax(dim=1)[:, 1], self.dense6_2(x), points


def _halve(features: torch.Tensor) -> torch.Tensor:
    """Largest value of every 2 x 2 block of (B,C,H,W), blocks at the far edges cut off by them.

    What `MaxPool2d(2, 2, ceil_mode=True)` computes, which for ten channels takes three times as long on
    a CPU.
    """
    bottom, right = features.shape[2] % 2, features.shape[3] % 2
    if bottom or right:
        features = F.pad(features, (0, right, 0, bottom), mode="replicate")
    features = torch.maximum(features[:, :, ::2], features[:, :, 1::2])
    return torch.maximum(features[..., ::2], features[..., 1::2])


def _flatten(features: torch.Tensor) -> torch.Tensor:
    """Flatten (B,C,H,W) with columns outermost: the dense layers were trained on Matlab's order."""
    return features.permute(0, 3, 2, 1).flatten(1)
