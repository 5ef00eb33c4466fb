"""OMGSR-S: the degraded latent is taken for a noisy one in the middle of Stable Diffusion's schedule."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch

from facerestore.core.precision import FP32, Target
from facerestore.diffusion.components import Piece
from facerestore.diffusion.configs import TINY_SD_VAE
from facerestore.diffusion.x0 import x0_from_eps
from facerestore.stages.sd21 import SD21Config, SD21Stage

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore


class OMGSRS(SD21Stage):
    """Take out what the UNet calls noise, at the timestep whose signal-to-noise ratio degraded latents have.

    The encoder was tuned to bring latents there, the decoder is the base model's. With z the latent,
    `z_0 = (z - sqrt(1 - a) * eps(z, t)) / sqrt(a)`, a the cumulative signal variance of timestep 273.

    Reference:
        OMGSR, 2025, arXiv:2508.08227; GitHub wuer5/OMGSR `infer/omgsr_s_infer_model.py`.
    Parity:
        The official forward pass on the same weights with the posterior's mode, 1e-4 abs in float32.

    Args:
        unet: Stable Diffusion 2.1-base's UNet, the adapter merged.
        codec: its autoencoder, the adapter of the encoder merged.
        prompt: (77,1024) the embedding of an empty prompt.
        config: the settings.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(SD21Config):
        """Settings; the defaults are those of the model for 512 px."""

        timestep: int = 273
        """Of 1000. Adapters are valid at the one that they were trained at, and at no other."""
        tile: int = 64
        """Side of a tile, latent cells of 8 px: larger areas than its square go through the UNet in tiles."""
        vae_lora: str | None = "omgsr-s/vae-lora"
        """Adapter of the encoder, its keys relative to it; None leaves the base model's."""
        unet_lora: str | None = "omgsr-s/unet-lora"
        """Adapter of the UNet; None leaves the base model's."""
        lora_scale: float = 1.0
        """alpha / rank of both adapters: 16 / 16 and 32 / 32. A file that says otherwise is refused."""

        def published(self) -> tuple[str | None, ...]:
            """The adapters of encoder, where it is in use, and UNet."""
            return (self.vae_lora if self.codec != "tiny" else None, self.unet_lora)

        def tiny(self) -> Self:
            """Both networks at their smallest with random weights, and a made prompt."""
            return self.made(vae_lora=None, unet_lora=None)

        def build(self, store: "WeightStore", target: Target = FP32) -> "OMGSRS":
            """Load everything, the adapters merged in float32.

            Raises:
                ConfigError: if an adapter says that it was made for another timestep.
                KeyMismatch: if an adapter was made for another network, or for another scale.
            """
            for_unet, for_vae = self.own_pieces(store)
            vae_lora, unet_lora = self.published()
            if unet_lora is not None:
                for_unet = [self._piece(store, unet_lora), *for_unet]
            if vae_lora is not None:
                adapter, scale = self._piece(store, vae_lora)
                for_vae = [(adapter.below("encoder"), scale), *for_vae]
            codec = self.latent_codec(store, TINY_SD_VAE, name="omgsr_s", pieces=for_vae)
            unet = self.load_unet(store, target, *for_unet)
            return OMGSRS(unet, codec, self.load_prompt(store, unet), self, self.load_refiner(store, codec))

        def _piece(self, store: "WeightStore", name: str) -> Piece:
            (adapter,) = self.read_pieces(store, name, "")
            return adapter, self.lora_scale

    def step(self, z: torch.Tensor) -> torch.Tensor:
        """From scaled latents (B,4,h,w) to clean ones, float32."""
        return x0_from_eps(z, self.refined(z, self.ask(self.unet, z)), self.alpha_bar)
