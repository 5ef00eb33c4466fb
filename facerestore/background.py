"""The whole photo around the faces: enlarged as it is, or restored by the x4 network."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch

from facerestore.core.config import Config
from facerestore.imaging.photo import Photo
from facerestore.imaging.resize import resize
from facerestore.imaging.tiling import enlarge_in_strips, tile_starts
from facerestore.nets.rrdbnet import RRDBNet
from facerestore.stages.realesrgan import SCALE, RealESRGAN

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

TILE_PX, OVERLAP_PX = 192, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class BackgroundConfig(Config):
    """Which x4 network restores the background."""

    net: RRDBNet.Config = RRDBNet.Config()
    """Size of the network."""
    weight: str | None = "realesrgan-x4plus"
    """Name in the manifest; None keeps the seeded random weights of tests."""

    def weights(self) -> tuple[str, ...]:
        """The one file it needs."""
        return (self.weight,) if self.weight else ()

    def build(self, store: "WeightStore") -> RealESRGAN:
        """Load the network."""
        return RealESRGAN.Config(net=self.net, weight=self.weight).build(store)

    def tiny(self) -> Self:
        """One block, random weights."""
        return replace(self, net=self.net.tiny(), weight=None)


def restore_background(
    photo: Photo,
    canvas: Photo,
    upscaler: RealESRGAN,
    *,
    upscale: int,
    on_strip: Callable[[float], None] | None = None,
) -> None:
    """Write the restored photo into `canvas`, strip by strip.

    Args:
        photo: the picture as it came.
        canvas: a private copy of it, enlarged `upscale` times; its pixels are overwritten.
        upscaler: a placed stage; its network enlarges four times, and the strips are reduced to `upscale`.
        upscale: 1, 2 or 4.
        on_strip: called with the share done, in (0,1], after each strip.
    """
    device = next(upscaler.net.parameters()).device

    def enlarge(tile: torch.Tensor) -> torch.Tensor:
        large = upscaler.enlarge(tile.to(device))
        if upscale == SCALE:
            return large
        return resize(large, tile.shape[2] * upscale, tile.shape[3] * upscale)

    strips = enlarge_in_strips(
        photo.srgb, enlarge, photo.height, photo.width, scale=upscale, tile_px=TILE_PX, overlap_px=OVERLAP_PX
    )
    grey = photo.is_grey
    for y, strip in strips:
        if grey:
            strip = strip.mean(1, keepdim=True).expand_as(strip)
        bottom = y + strip.shape[2]
        canvas.blend((0, y, canvas.width, bottom), strip, strip.new_ones(1, 1, *strip.shape[2:]))
        if on_strip is not None:
            on_strip(bottom / canvas.height)


def background_seconds(height: int, width: int, upscaler: RealESRGAN) -> float:
    """How long `restore_background` will take for a photo of this size, judged by one timed tile."""
    tiles = len(tile_starts(height, TILE_PX, OVERLAP_PX)) * len(tile_starts(width, TILE_PX, OVERLAP_PX))
    tile = torch.full((1, 3, min(height, TILE_PX), min(width, TILE_PX)), 0.5)
    tile = tile.to(next(upscaler.net.parameters()).device)
    upscaler.enlarge(tile)
    start = time.perf_counter()
    upscaler.enlarge(tile).cpu()
    return tiles * (time.perf_counter() - start)
