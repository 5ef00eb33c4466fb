"""What the one-step restorers on Stable Diffusion 2.1 with a constant prompt share: all but their formula."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import nn

from facerestore.core.errors import ConfigError
from facerestore.core.precision import Target
from facerestore.diffusion import backbones
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.components import Piece, component
from facerestore.diffusion.configs import TINY_UNET
from facerestore.diffusion.constant_prompt import constant_prompt
from facerestore.diffusion.latent_tiling import predict_tiled
from facerestore.diffusion.schedule import sd_alpha_bar
from facerestore.nets.residual_refiner import ResidualRefiner
from facerestore.stages.one_step import MADE, OneStepConfig, OneStepStage

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

_TOKENS = 77  # of CLIP's text encoder, always


@dataclass(frozen=True, slots=True, kw_only=True)
class SD21Config(OneStepConfig):
    """Settings that all of them have.

    Raises:
        ConfigError: if the timestep or the tiles are out of range.
    """

    backbone: ClassVar[str] = "sd21_unet"

    timestep: int
    """Of 1000. Adapters are valid at the one that they were trained at, and at no other."""
    unet: str | None = "sd21-base/unet"
    """Folder of the UNet in the manifest; None makes a tiny one, for tests."""
    vae: str | None = "sd21-base/vae"
    """Folder of the autoencoder; None makes a tiny one."""
    prompt: str | None = "sd21-base/prompt-empty"
    """File with the embedding of the prompt, (77,1024) as the tensor `prompt`; None makes one."""
    tile: int = 96
    """Side of a tile, latent cells of 8 px: larger areas than its square go through the UNet in tiles."""
    overlap: int = 32
    """Of neighbouring tiles, latent cells."""

    def __post_init__(self) -> None:
        if not 0 <= self.timestep <= 999:
            raise ConfigError(f"timestep lies in 0 to 999, got {self.timestep}")
        if not 0 <= self.overlap < self.tile:
            raise ConfigError(f"overlap lies in 0 to {self.tile - 1}, got {self.overlap}")

    @property
    def noise_timestep(self) -> float:
        """The timestep."""
        return self.timestep

    def made_for(self) -> dict[str, float]:
        """The timestep."""
        return {"timestep": self.timestep}

    def published(self) -> tuple[str | None, ...]:
        """The files that make a restorer of the base model."""
        return ()

    def files(self) -> tuple[str | None, ...]:
        """UNet, prompt, and the published files."""
        return (self.unet, self.prompt, *self.published())

    def made(self, **published: None) -> Self:
        """Every network at its smallest with random weights, and a made prompt.

        Args:
            published: fields that name published files, as None.
        """
        refiner = None if self.refiner is None else MADE
        made = replace(self, unet=None, vae=None, small_vae=None, prompt=None, adapters=(), refiner=refiner)
        return replace(made, **published)

    def load_unet(self, store: "WeightStore", target: Target, *pieces: Piece) -> Any:
        """The UNet with these adapters merged, in the dtype in which it will run."""
        dtype = target.layout(self.backbone).weights
        return component(store, self.unet, backbones.sd_unet, TINY_UNET, dtype=dtype, pieces=pieces)

    def load_prompt(self, store: "WeightStore", unet: Any) -> torch.Tensor:
        """The embedding (77,width) of the constant prompt."""
        return constant_prompt(store, self.prompt, tokens=_TOKENS, width=unet.config.cross_attention_dim)


class SD21Stage(OneStepStage):
    """Abstract: the UNet of Stable Diffusion 2.1 is asked once, always with the same words.

    Args:
        unet: Stable Diffusion 2.1-base's `UNet2DConditionModel`, adapters merged.
        codec: its autoencoder, adapters merged.
        prompt: (77,width) what the UNet is always told.
        config: the settings.
        refiner: corrects the UNet's answer; None leaves it.
    """

    prompt: torch.Tensor

    def __init__(
        self,
        unet: nn.Module,
        codec: LatentCodec,
        prompt: torch.Tensor,
        config: SD21Config,
        refiner: ResidualRefiner | None = None,
    ) -> None:
        super().__init__(codec, config, refiner)
        self.config: SD21Config = config
        self.unet: Any = unet
        self.alpha_bar = float(sd_alpha_bar()[config.timestep])
        self.register_buffer("prompt", prompt, persistent=False)

    def ask(self, unet: Any, z: torch.Tensor, timesteps: torch.Tensor | None = None) -> torch.Tensor:
        """What a UNet says of latents (B,4,h,w), float32; large ones tile by tile.

        Args:
            unet: it.
            z: the latents.
            timesteps: (B,) one for each; None asks at that of the settings.
        """
        prompt = self.prompt.to(self.layout.dtype).expand(len(z), -1, -1)
        steps = timesteps
        if steps is None:
            steps = torch.full((len(z),), self.config.timestep, device=z.device)

        def predict(tile: torch.Tensor) -> torch.Tensor:
            return unet(self.layout.tensor(tile), steps, encoder_hidden_states=prompt, return_dict=False)[0]

        return predict_tiled(predict, z, tile=self.config.tile, overlap=self.config.overlap)
