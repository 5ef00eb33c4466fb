"""OSDFace's discriminator: it never sees a picture, it judges noised latents by half of a diffusion UNet.

Reference:
    Wang et al., 2025, OSDFace, arXiv:2411.17163, whose training is not published. Head, rank and layers are
    those of a public re-trainer, js43o/OSDFace@b2e1650, which takes SDXL's UNet; which one the authors took
    is not known. The idea: Li et al., 2024, D3SR, arXiv:2410.04224.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from torch import Tensor, nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError, ShapeError
from facerestore.diffusion.attached import attach
from facerestore.diffusion.backbones import sd_unet
from facerestore.diffusion.components import component
from facerestore.diffusion.configs import TINY_SDXL_UNET, TINY_UNET
from facerestore.diffusion.half_unet import HalfUNet
from facerestore.diffusion.noising import alpha_bar_at, noised

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
LORA_TARGETS += ("conv1", "conv2", "conv_shortcut", "proj_in", "proj_out")
_TINY: dict[str, dict[str, Any]] = {"sd21-base/unet": TINY_UNET, "sdxl-turbo/unet": TINY_SDXL_UNET}


class LatentDiscriminator(nn.Module):
    """Noises latents, describes them by half a UNet with an adapter, and judges by a small head.

    Real and fake latents are given the same timesteps and noise of their own:
    L_G = -log D(F(z_pred, t)), L_D = -log D(F(z_hq, t)) - log(1 - D(F(z_pred, t))), which are the losses of
    `losses.adversarial` of kind `non_saturating`.

    Args:
        backbone: the half UNet; frozen, but for its adapter.
        config: sizes.
        seed: of the adapter's first factors.

    Raises:
        ConfigError: if no layer of the UNet is called as the adapter's targets are.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Settings.

        Raises:
            ConfigError: if a number is negative, or the head has no width.
        """

        unet: Literal["sd21-base/unet", "sdxl-turbo/unet"] = "sd21-base/unet"
        """The weight that it is made of; its latents are those of its own autoencoder."""
        rank: int = 16
        """Of the adapter, and its alpha; 0 trains the head alone."""
        hidden: int = 512
        """Width inside the head."""

        def __post_init__(self) -> None:
            if self.rank < 0 or self.hidden < 1:
                raise ConfigError(f"LatentDiscriminator: rank >= 0 and hidden >= 1 are needed, got {self}")

    def __init__(self, backbone: HalfUNet, config: Config, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone.requires_grad_(False)
        if config.rank:
            attach(backbone, rank=config.rank, alpha=config.rank, targets=LORA_TARGETS, seed=seed)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(backbone.width, config.hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(config.hidden, 1),
        )

    @classmethod
    def load(cls, store: "WeightStore", config: Config | None = None, seed: int = 0) -> Self:
        """A new head and adapter on a published UNet, which is the user's to fetch.

        Raises:
            ConfigError: if the folder holds another base model.
            WeightsError: if it is not there, or damaged.
        """
        config = config or cls.Config()
        return cls(HalfUNet(component(store, config.unet, sd_unet, _TINY[config.unet])), config, seed)

    @classmethod
    def tiny(cls, config: Config | None = None, seed: int = 0) -> Self:
        """A new head and adapter on a small UNet with made weights; for tests."""
        from facerestore.weights.store import WeightStore

        config = config or cls.Config(rank=2, hidden=16)
        unet = component(WeightStore(), None, sd_unet, _TINY[config.unet])
        return cls(HalfUNet(unet), config, seed)

    def features(
        self, z: Tensor, timesteps: Tensor, noise: Tensor, prompt: Tensor | None = None
    ) -> list[Tensor]:
        """The one map that the head reads, of latents after noise was put onto them.

        With an adapter it is trained, and cannot be described once for both players.

        Args:
            z: clean latents (B,C,h,w) after scaling, real or predicted; gradients pass to them.
            timesteps: (B,) whole numbers in 0 to 999, drawn uniformly, the same for real and fake.
            noise: normal, of the shape of `z`.
            prompt: what the UNet is told, (B,N,D) or (1,N,D): the visual prompt, or a constant one; None is
                zeros.

        Raises:
            ShapeError: if a shape does not fit.
        """
        if timesteps.shape != (len(z),):
            raise ShapeError(f"timesteps ({len(z)},)", timesteps.shape)
        z_t = noised(z, noise, alpha_bar_at(timesteps))
        return [self.backbone(z_t, timesteps, prompt)]

    def score(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Logits (B,1) of that map, as a list of one."""
        return [self.head(features[0].to(next(self.head.parameters()).dtype))]

    def forward(
        self, z: Tensor, timesteps: Tensor, noise: Tensor, prompt: Tensor | None = None
    ) -> list[Tensor]:
        """Clean latents to logits (B,1); see `features` for the arguments.

        Raises:
            ShapeError: if a shape does not fit.
        """
        return self.score(self.features(z, timesteps, noise, prompt))
