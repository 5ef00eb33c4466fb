"""Real-ESRGAN x4plus as a face restorer: shrink to what the face really holds, then enlarge four times."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch import nn

from facerestore.core.offload import Need
from facerestore.core.precision import FP32, Layout, Target
from facerestore.core.state import RestorationState
from facerestore.imaging.resize import resize
from facerestore.imaging.sharpness import edge_blur_px, grain
from facerestore.nets.rrdbnet import RRDBNet
from facerestore.stages.base import ImageStage, StageConfig, StageContract
from facerestore.weights.load import load_into
from facerestore.weights.seeded import fill_seeded

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

SCALE = 4
_JUDGED_PX = 16  # a face with a shorter side shows too few edges to measure their blur
# Beside the weights, for one face that enters at 256 px: 0.56 GB in float32 on a CPU.
_WORK_BYTES = 600_000_000


class RealESRGAN(ImageStage):
    """Bring each face to 64, 128, 192 or 256 px, restore it with the x4 network, bring it to its size again.

    The smaller the size at which a face enters, the more of it is painted anew: damage disappears, and so
    does detail.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(StageConfig):
        """Settings."""

        entry_px: Literal["auto", 64, 128, 192, 256] = "auto"
        """Side of the face where it enters the network; `auto` follows the measured blur of its edges."""
        sharp_px: float = 2.1
        """Edge blur (see `edge_blur_px`, in pixels of a 512 px face) up to which a face enters at 256 px."""
        soft_px: float = 2.6
        """Edge blur up to which it enters at 192 px."""
        ruined_px: float = 5.5
        """Edge blur up to which it enters at 128 px; softer ones enter at 64 px. At 128 px the network draws
        stubble and wire into a ruined face, as seen on the seven softest of 28 real ones."""
        grain: float = 3.3 / 255
        """Noise (see `grain`, in units of [0,1]) above which a face enters one size smaller: averaging
        removes grain
        and print rasters that the network would draw as hair and wire."""
        net: RRDBNet.Config = RRDBNet.Config()
        """Size of the network."""
        weight: str | None = "realesrgan-x4plus"
        """Name in the manifest; None keeps the seeded random weights of tests."""

        def contract(self) -> StageContract:
            """A GAN: it may invent detail. Which size a face enters at does not pass gradients."""
            return StageContract(generative=True)

        def weights(self) -> tuple[str, ...]:
            """The one file it needs."""
            return (self.weight,) if self.weight else ()

        def needs(self, store: "WeightStore", target: Target) -> tuple[Need, ...]:
            """The one network."""
            parameters = store.spec(self.weight).parameters if self.weight else 0
            size = parameters * target.layout("rrdbnet").dtype.itemsize
            return (Need(stage="realesrgan", networks=(size,), work=_WORK_BYTES),)

        def build(self, store: "WeightStore", target: Target = FP32) -> "RealESRGAN":
            """Load the network, in float32 until `place` says otherwise: it is small."""
            del target
            net = RRDBNet(self.net)
            if self.weight:
                load_into(net, store.load(self.weight), self.weight)
            else:
                fill_seeded(net)
            return RealESRGAN(net, self)

        def tiny(self) -> Self:
            """One block, random weights."""
            return replace(self, net=self.net.tiny(), weight=None)

    def __init__(self, net: RRDBNet, config: Config) -> None:
        super().__init__()
        self.config: RealESRGAN.Config = config
        self.net = net

    def networks(self, target: Target, batch: int | None) -> Iterator[tuple[nn.Module, Layout]]:
        """The one network."""
        yield self.net, target.layout("rrdbnet", batch)

    def entry_sizes(self, image: torch.Tensor) -> list[int]:
        """The size in pixels at which each face of (B,3,H,H) enters the network."""
        if self.config.entry_px != "auto":
            return [self.config.entry_px] * len(image)
        if min(image.shape[2:]) < _JUDGED_PX:
            return [64] * len(image)
        blur = edge_blur_px(image) * (512 / image.shape[-1])
        steps = (blur > self.config.sharp_px).int() + (blur > self.config.soft_px).int()
        steps = (steps + (grain(image) > self.config.grain).int()).clamp(max=2)
        steps = torch.where(blur > self.config.ruined_px, 3, steps)
        return [(256, 192, 128, 64)[step] for step in steps.tolist()]

    def enlarge(self, image: torch.Tensor) -> torch.Tensor:
        """Run the network in batches that fit the device: (B,3,h,w) to (B,3,4h,4w) float32, not clamped."""
        parts = image.split(self.layout.batch)
        return torch.cat([self.net(self.layout.tensor(part)).float() for part in parts])

    def forward(self, state: RestorationState) -> RestorationState:
        """Restore, and report the size at which each face entered as the fact `entry_px`."""
        sizes = self.entry_sizes(state.image)
        return super().forward(state.with_fact("entry_px", sizes))

    def restore(self, image: torch.Tensor, state: RestorationState) -> torch.Tensor:
        """(B,3,H,W) float32 in [0,1] to the same form; faces of one entry size go together."""
        sizes = state.facts.get("entry_px") or self.entry_sizes(image)  # training asks without `forward`
        out = torch.empty_like(image)
        for size in sorted(set(sizes)):
            chosen = [i for i, s in enumerate(sizes) if s == size]
            for index in torch.tensor(chosen, device=image.device).split(self.layout.batch):
                small = resize(image[index], int(size), int(size))
                out[index] = resize(self.enlarge(small), image.shape[2], image.shape[3])
        return out
