"""A small U-Net that is trained on faces, and works at a size at which a CPU can train it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch
from torch import nn

from facerestore.core.errors import ConfigError
from facerestore.core.precision import FP32, Layout, Target
from facerestore.core.seeding import seeded_layers
from facerestore.core.state import RestorationState
from facerestore.imaging.pad import cut, pad_to_multiple
from facerestore.imaging.resize import resize
from facerestore.nets.face_unet import ResidualUNet
from facerestore.stages.base import ImageStage, StageConfig, StageContract
from facerestore.weights.load import load_into

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore


class FaceUNet(ImageStage):
    """Bring each face to the size at which the network works, restore it, bring it back.

    Trained by `facerestore.training.restorer.RestorerTask`. Without weights it is a new network, which
    returns what it is given, but for the change of size.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(StageConfig):
        """Settings.

        Raises:
            ConfigError: if the size is below 16 px.
        """

        square_px: int = 256
        """Side at which faces are worked; what is finer than that is lost."""
        net: ResidualUNet.Config = ResidualUNet.Config()
        """Size of the network."""
        weight: str | None = None
        """Name of its file, such as `own/face_unet` for one of your own; None makes a new network."""

        def __post_init__(self) -> None:
            if self.square_px < 16:
                raise ConfigError(f"FaceUNet works at 16 px or more, got square_px={self.square_px}")

        def contract(self) -> StageContract:
            """It draws the face that is likely: it may invent detail."""
            return StageContract(generative=True)

        def weights(self) -> tuple[str, ...]:
            """The one file, where it needs one."""
            return (self.weight,) if self.weight else ()

        def build(self, store: "WeightStore", target: Target = FP32) -> "FaceUNet":
            """Load the network, in float32 until `place` says otherwise: it is small."""
            del target
            with seeded_layers(0, "face_unet"):
                net = ResidualUNet(self.net)
            if self.weight:
                load_into(net, store.load(self.weight), self.weight)
            return FaceUNet(net, self)

        def tiny(self) -> Self:
            """One block of 8 channels a level, new, on small faces."""
            return replace(self, square_px=64, net=self.net.tiny(), weight=None)

    def __init__(self, net: ResidualUNet, config: Config) -> None:
        super().__init__()
        self.config: FaceUNet.Config = config
        self.net = net

    def networks(self, target: Target, batch: int | None) -> Iterator[tuple[nn.Module, Layout]]:
        """The one network."""
        yield self.net, target.layout("face_unet", batch)

    def restore(self, image: torch.Tensor, state: RestorationState) -> torch.Tensor:
        """(B,3,H,W) float32 in [0,1] to the same form; not clamped where the size need not change."""
        side = self.config.square_px
        small = resize(image, side, side)
        padded = pad_to_multiple(small, self.net.config.multiple_px)
        parts = padded.split(self.layout.batch)
        restored = torch.cat([self.net(self.layout.tensor(part)).float() for part in parts])
        return resize(cut(restored, side, side), *image.shape[2:])
