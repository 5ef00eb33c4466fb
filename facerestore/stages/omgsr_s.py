"""OMGSR-S: the degraded latent is taken for a noisy one in the middle of Stable Diffusion's schedule."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import torch

from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.lora import merge_adapter, require_made_for
from facerestore.diffusion.x0 import x0_from_eps
from facerestore.stages.sd21 import SD21Config, SD21Stage, read_pieces

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore


class OMGSRS(SD21Stage):
    """Take out what the UNet calls noise, at the timestep whose signal-to-noise ratio degraded latents have.

    The encoder was tuned to bring latents there, the decoder is the base model's. With z the latent,
    `z_0 = (z - sqrt(1 - a) * eps(z, t)) / sqrt(a)`, a the cumulative signal variance of timestep 273.

    Reference:
        OMGSR, 2025, arXiv:2508.08227; GitHub wuer5/OMGSR `infer/omgsr_s_infer_model.py`.
    Parity:
        The official forward pass on the same weights with the posterior's mode, 1e-5 abs in float32.

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

        def adapters(self) -> tuple[str | None, ...]:
            """The adapters of encoder and UNet."""
            return (self.vae_lora, self.unet_lora)

        def tiny(self) -> Self:
            """Both networks at their smallest with random weights, and a made prompt."""
            return replace(self, unet=None, vae=None, prompt=None, vae_lora=None, unet_lora=None)

        def build(self, store: "WeightStore") -> "OMGSRS":
            """Load everything and merge the adapters in float32; `place` chooses the dtype.

            Raises:
                ConfigError: if an adapter says that it was made for another timestep.
                KeyMismatch: if an adapter was made for another network, or for another scale.
            """
            unet, vae, prompt = self.base(store)
            for name, net in ((self.vae_lora, vae.encoder), (self.unet_lora, unet)):
                if name is not None:
                    (adapter,) = read_pieces(store, name, "")
                    require_made_for(adapter, timestep=self.timestep)
                    merge_adapter(net, adapter, scale=self.lora_scale)
            return OMGSRS(unet, LatentCodec.of(vae, name="omgsr_s"), prompt, self)

    def step(self, z: torch.Tensor) -> torch.Tensor:
        """From scaled latents (B,4,h,w) to clean ones, float32."""
        return x0_from_eps(z, self.ask(self.unet, z), self.alpha_bar)
