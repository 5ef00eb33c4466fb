"""Z-Image-Turbo as a one-step restorer: its transformer is asked once, at a fixed noise level and prompt."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import nn

from facerestore.core.errors import ConfigError
from facerestore.core.precision import FP32, Target
from facerestore.diffusion import backbones
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.components import component
from facerestore.diffusion.configs import TINY_FLUX_VAE, TINY_TAEF1, TINY_ZIMAGE_TRANSFORMER
from facerestore.diffusion.constant_prompt import constant_prompt
from facerestore.diffusion.latent_tiling import predict_tiled
from facerestore.diffusion.x0 import x0_from_zimage
from facerestore.diffusion.zimage_constants import FoldedZImage, fold_constants
from facerestore.nets.residual_refiner import ResidualRefiner
from facerestore.stages.one_step import MADE, OneStepConfig, OneStepStage

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

MULTIPLE_PX = 16  # 8 px a latent cell, 2 x 2 cells a token
_TINY_PROMPT_TOKENS = 7


class ZImage(OneStepStage):
    """Encode, let the transformer say once which way clean pictures lie, go there, decode.

    No noise is added: what is wrong with the picture is taken for the noise of level sigma. With z the
    latent and m the transformer's raw output, which points from noise to the clean latent,
    `z_0 = z + sigma * m(z, t = 1 - sigma, prompt)`. Guidance is off.

    Reference:
        HONORAICamera's entry in NTIRE 2026 image super-resolution; GitHub
        zhengchen1999/NTIRE2026_ImageSR_x4, `models/team14_HonorAICamera`.
    Parity:
        One Euler step of diffusers' `ZImagePipeline` from sigma to 0 with shift 1: bit for bit in float32
        before folding, 1e-5 abs after.

    Args:
        transformer: a `ZImageTransformer2DModel`, or what is called like one. With `config.fold` it is
            taken apart: do not use it afterwards.
        codec: its autoencoder.
        prompt: the embedding of the one prompt, (L,width), without padding.
        config: the settings.
        refiner: corrects the transformer's answer; None leaves it.
    """

    prompt: torch.Tensor

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(OneStepConfig):
        """Settings."""

        backbone: ClassVar[str] = "zimage"
        tiny_codec: ClassVar[Mapping[str, Any]] = TINY_TAEF1

        sigma: float = 0.244
        """Noise level in [0,1] for which the picture is taken; the transformer is told t_in = 1 - sigma.

        HONORAICamera gives "244", a number with three readings: the raw timestep 244 of 1000, so sigma 0.244,
        which is what the team's public sister entry computes (121 there is 0.121) and what stands here; the
        same moved by Turbo's own shift of 3, 0.4919; and index 244 of FLUX's schedule, as OMGSR-F means it,
        0.5051. The latter two take twice as much of the picture for noise, and invent more."""
        transformer: str | None = "z-image-turbo/transformer"
        """Folder of the transformer in the manifest; None makes a tiny one, for tests."""
        vae: str | None = "z-image-turbo/vae"
        """Folder of the autoencoder; None makes a tiny one."""
        small_vae: str | None = "taef1"
        """Folder of the small autoencoder; None makes one."""
        prompt: str | None = "z-image-turbo/prompt"
        """File with the embedding of the prompt, (L,2560) as the tensor `prompt`; None makes one."""
        adapters: tuple[str, ...] = ()
        """Adapters, merged one after the other: each was trained on what the ones before had made."""
        tile: int = 128
        """Side of a tile, latent cells of 8 px: larger areas than its square are restored in tiles."""
        overlap: int = 32
        """Of neighbouring tiles, latent cells."""
        fold: bool = True
        """Whether prompt and noise level are folded into the weights; False to train what is folded away."""

        def __post_init__(self) -> None:
            if not 0 < self.sigma <= 1:
                raise ConfigError(f"sigma lies above 0 and not above 1 (timestep / 1000), got {self.sigma}")
            if self.tile < 2 or self.tile % 2 or self.overlap % 2 or not 0 <= self.overlap < self.tile:
                raise ConfigError(
                    f"tile and overlap are even, the overlap is smaller: got {self.tile} and {self.overlap}"
                )

        @property
        def noise_timestep(self) -> float:
            """Sigma in thousandths."""
            return 1000 * self.sigma

        def made_for(self) -> dict[str, float]:
            """The noise level."""
            return {"sigma": self.sigma}

        def files(self) -> tuple[str | None, ...]:
            """Transformer and prompt."""
            return (self.transformer, self.prompt)

        def build(self, store: "WeightStore", target: Target = FP32) -> "ZImage":
            """Load everything, the adapters merged in float32, and fold.

            Raises:
                ConfigError: if an adapter says that it was made for another sigma, or no scale is known.
                KeyMismatch: if one key of an adapter finds no place.
                UnsupportedDtype: for fp16.
            """
            for_net, for_vae = self.own_pieces(store)
            codec = self.latent_codec(store, TINY_FLUX_VAE, name="zimage", pieces=for_vae)
            transformer = component(
                store,
                self.transformer,
                backbones.zimage_transformer,
                TINY_ZIMAGE_TRANSFORMER,
                dtype=target.layout(self.backbone).weights,
                pieces=for_net,
            )
            width = transformer.config.cap_feat_dim
            prompt = constant_prompt(store, self.prompt, tokens=_TINY_PROMPT_TOKENS, width=width)
            return ZImage(transformer, codec, prompt, self, self.load_refiner(store, codec))

        def tiny(self) -> Self:
            """Two layers, random weights and a made prompt."""
            refiner = None if self.refiner is None else MADE
            return replace(
                self, transformer=None, vae=None, small_vae=None, prompt=None, adapters=(), refiner=refiner
            )

    def __init__(
        self,
        transformer: nn.Module,
        codec: LatentCodec,
        prompt: torch.Tensor,
        config: Config,
        refiner: ResidualRefiner | None = None,
    ) -> None:
        super().__init__(codec, config, refiner)
        self.config: ZImage.Config = config
        self.transformer: Any = (
            fold_constants(transformer, prompt, config.sigma) if config.fold else transformer
        )
        self.register_buffer("prompt", prompt, persistent=False)

    @property
    def multiple_px(self) -> int:
        """8 px a latent cell, 2 x 2 cells a token."""
        return MULTIPLE_PX

    def predict(self, z: torch.Tensor) -> torch.Tensor:
        """The transformer's raw output m for latents (B,C,h,w): the way from noise to clean, float32.

        Large latents go through in tiles, each with positions of its own.
        """
        return predict_tiled(self._predict, z, tile=self.config.tile, overlap=self.config.overlap)

    def _predict(self, z: torch.Tensor) -> torch.Tensor:
        z = z.to(self.layout.dtype)
        if isinstance(self.transformer, FoldedZImage):
            return self.transformer(z)
        t = torch.full((len(z),), 1 - self.config.sigma, device=z.device)
        prompts = [self.prompt.to(z)] * len(z)
        frames = self.transformer(list(z.unsqueeze(2)), t, prompts, return_dict=False)[0]
        return torch.stack(frames).squeeze(2)

    def step(self, z: torch.Tensor) -> torch.Tensor:
        """From latents (B,C,h,w) to clean ones, float32."""
        return x0_from_zimage(z, self.refined(z, self.predict(z)), self.config.sigma)
