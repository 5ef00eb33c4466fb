"""What DINOv2 sees: maps of patches from several depths, and one description of the whole picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.errors import ConfigError, ShapeError
from facerestore.features.imagenet import MEAN_RGB, STD_RGB
from facerestore.features.towers import Tower, load_tower, made_tower

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

SMALL, BASE = "dinov2-small", "dinov2-base"
_ATTENTION = (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"))
TOWER = Tower(
    "Dinov2Model",
    "Dinov2Config",
    "dinov2",
    renamed=(
        *((f".attention.attention.{old}.", f".attention.{new}.") for old, new in _ATTENTION),
        (".attention.output.dense.", ".attention.o_proj."),
    ),
)


class DinoV2(nn.Module):
    """Turns pictures into maps of features; differentiable, for losses and discriminators to stand on.

    A picture is resized to the nearest size that its patches fill: 512 to 518 px at 14 px a patch.

    Args:
        net: transformers' `Dinov2Model`.
        depths: numbers of the blocks whose output is returned, from 1.

    Raises:
        ConfigError: if the network has no such block.

    Reference:
        Oquab et al., 2023, arXiv:2304.07193; maps as its `get_intermediate_layers(reshape=True, norm=True)`
        gives them: patches after the last norm.
    Parity:
        transformers' `Dinov2Backbone` on the same weights, 1e-5 abs in float32, live.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, depths: Sequence[int] = (3, 6, 9, 12)) -> None:
        super().__init__()
        self.net: Any = net
        self.depths = tuple(depths)
        blocks = self.net.config.num_hidden_layers
        if not self.depths or not all(1 <= depth <= blocks for depth in self.depths):
            raise ConfigError(f"depths should be numbers of blocks from 1 to {blocks}, got {self.depths}")
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD_RGB).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def load(cls, store: "WeightStore", name: str = SMALL, depths: Sequence[int] = (3, 6, 9, 12)) -> Self:
        """Build it from a folder of the store, frozen and in eval mode.

        Args:
            store: where weights are.
            name: `SMALL` (384 wide) or `BASE` (768).
            depths: see the class.

        Raises:
            WeightsNotFound: if the folder is not there.
            WeightsError: if it holds another network, or a damaged one.
        """
        return cls(load_tower(store.readable(name), TOWER), depths).eval()

    @classmethod
    def tiny(cls) -> Self:
        """Four blocks of width 32 with made weights, depths 1 to 4; for tests."""
        settings = {
            "hidden_size": 32,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
        }
        return cls(made_tower(TOWER, settings), (1, 2, 3, 4)).eval()

    @property
    def width(self) -> int:
        """Channels of each map."""
        return self.net.config.hidden_size

    @property
    def patch_px(self) -> int:
        """Pixels of a patch along each side."""
        return self.net.config.patch_size

    def forward(self, images: Tensor) -> list[Tensor]:
        """Describe patches.

        Args:
            images: (B,3,H,W) float32 in [0,1].

        Returns:
            For each depth a map (B,width,h,w), h and w the sides in patches.

        Raises:
            ShapeError: if they are no pictures, or smaller than half a patch.
        """
        pixels = self._pixels(images)
        rows, columns = (side // self.patch_px for side in pixels.shape[2:])
        states = self.net(pixels, output_hidden_states=True).hidden_states
        patches = [self.net.layernorm(states[depth])[:, 1:] for depth in self.depths]
        return [each.transpose(1, 2).unflatten(2, (rows, columns)) for each in patches]

    def summary(self, images: Tensor) -> Tensor:
        """Describe whole pictures.

        Args:
            images: (B,3,H,W) float32 in [0,1].

        Returns:
            (B,width): the class token after the last norm.

        Raises:
            ShapeError: if they are no pictures, or smaller than half a patch.
        """
        return self.net(self._pixels(images)).last_hidden_state[:, 0]

    def _pixels(self, images: Tensor) -> Tensor:
        patch = self.patch_px
        if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < patch / 2:
            raise ShapeError(f"pictures (B,3,H,W) of at least {patch // 2} px", images.shape)
        rows, columns = (max(patch, patch * int(side / patch + 0.5)) for side in images.shape[2:])
        if (rows, columns) != images.shape[2:]:
            images = F.interpolate(images, (rows, columns), mode="bicubic", antialias=True)
        return (images - self.mean) / self.std
