"""What CLIP says of a picture: one direction in the space that it shares with words."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facerestore.core.errors import ShapeError
from facerestore.features.towers import Tower, load_tower, made_tower

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

WEIGHT = "clip-vit-l14"
MEAN_RGB = (0.48145466, 0.4578275, 0.40821073)
STD_RGB = (0.26862954, 0.26130258, 0.27577711)
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
)


def _vision(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of the settings of both towers, those of the one for pictures."""
    vision = config["vision_config"]
    sizes = {name: vision[name] for name in _SIZES if name in vision}
    return sizes | {"projection_dim": config["projection_dim"]}


TOWER = Tower(
    "CLIPVisionModelWithProjection",
    "CLIPVisionConfig",
    "clip",
    settings=_vision,
    unused=("text_model.", "text_projection.", "logit_scale", "vision_model.embeddings.position_ids"),
)


class ClipImage(nn.Module):
    """Turns pictures into unit vectors; differentiable.

    A picture is resized so that its shorter side fits, and its middle is looked at.

    Args:
        net: transformers' `CLIPVisionModelWithProjection`.

    Reference:
        Radford et al., 2021, arXiv:2103.00020.
    Parity:
        The network is transformers'; the resizing is antialiased bicubic in floats, where their processor
        rounds to 8 bits.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net: Any = net
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD_RGB).view(1, 3, 1, 1), persistent=False)

    @classmethod
    def load(cls, store: "WeightStore") -> Self:
        """Build it from a folder of the store, frozen and in eval mode; the text tower is left out.

        Raises:
            WeightsNotFound: if the folder is not there.
            WeightsError: if it holds another network, or a damaged one.
        """
        return cls(load_tower(store.readable(WEIGHT), TOWER)).eval()

    @classmethod
    def tiny(cls) -> Self:
        """Two blocks of width 32 at 32 px with made weights; for tests."""
        settings = {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 8,
            "projection_dim": 16,
        }
        return cls(made_tower(TOWER, settings)).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Describe.

        Args:
            images: (B,3,H,W) float32 in [0,1].

        Returns:
            (B,D) float32 of length 1.

        Raises:
            ShapeError: if they are no pictures.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ShapeError("pictures (B,3,H,W)", images.shape)
        side = self.net.config.image_size
        height, width = (side * each // min(images.shape[2:]) for each in images.shape[2:])
        if (height, width) != images.shape[2:]:
            images = F.interpolate(images, (height, width), mode="bicubic", antialias=True)
        top, left = (height - side) // 2, (width - side) // 2
        middle = images[:, :, top : top + side, left : left + side]
        said = self.net((middle - self.mean) / self.std).image_embeds
        return F.normalize(said.to(torch.promote_types(said.dtype, torch.float32)), dim=1)
