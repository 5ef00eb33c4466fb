"""OSEDiff: the degraded latent is taken for noise of the last timestep, which the UNet takes out at once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch

from facerestore.core.precision import FP32, Target
from facerestore.diffusion.configs import TINY_SD_VAE
from facerestore.diffusion.x0 import x0_from_eps
from facerestore.stages.one_step import require_parts
from facerestore.stages.sd21 import SD21Config, SD21Stage

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

_NAMES = ("default_encoder", "default_decoder", "default_others")  # of the UNet's adapters, by block
_WHOLES = ("conv_in.weight", "conv_in.bias")


class OSEDiff(SD21Stage):
    """Take out what the UNet calls noise at the last timestep.

    With z the latent, `z_0 = (z - sqrt(1 - a) * eps(z, t)) / sqrt(a)`, a the cumulative signal variance of
    timestep 999, which is what one step of a DDPM scheduler comes to. The official script describes each
    picture to the UNet in words that a tagger finds; here the prompt is constant.

    Reference:
        Wu et al., NeurIPS 2024, arXiv:2406.08177; GitHub cswry/OSEDiff `osediff.py`.
    Parity:
        The official forward pass on the same checkpoint and prompt with the posterior's mode, 1e-4 abs in
        float32.

    Args:
        unet: Stable Diffusion 2.1-base's UNet, the checkpoint merged.
        codec: its autoencoder, the adapter of encoder and quant_conv merged.
        prompt: (77,1024) the embedding of a prompt.
        config: the settings.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(SD21Config):
        """Settings; the defaults are those of the model for photographs."""

        timestep: int = 999
        """Of 1000. Adapters are valid at the one that they were trained at, and at no other."""
        adapter: str | None = "osediff/weights"
        """The published pickle, or what `weights import` makes of it; None leaves the base model."""
        lora_scale: float = 2.0
        """alpha / rank of the adapters: peft's default of 8, which training left, / 4."""
        lora_rank: int = 4
        """Rank of the adapters, on which their scale hangs, because their file does not say alpha."""

        def published(self) -> tuple[str | None, ...]:
            """The one file."""
            return (self.adapter,)

        def tiny(self) -> Self:
            """Both networks at their smallest with random weights, and a made prompt."""
            return self.made(adapter=None)

        def build(self, store: "WeightStore", target: Target = FP32) -> "OSEDiff":
            """Load everything, the checkpoint merged in float32.

            Raises:
                ConfigError: if the checkpoint says that it was made for another timestep.
                KeyMismatch: if the checkpoint has not exactly the parts that OSEDiff's have: adapters of UNet
                    and autoencoder, and the UNet's first convolution trained whole.
            """
            for_unet, for_vae = self.own_pieces(store)
            if self.adapter is not None:
                of_unet, of_vae = self.read_pieces(store, self.adapter, "unet", "vae", rank=self.lora_rank)
                require_parts(of_unet, names=_NAMES, wholes=_WHOLES)
                require_parts(of_vae, names=_NAMES[:1])
                for_unet = [(of_unet, self.lora_scale), *for_unet]
                for_vae = [(of_vae, self.lora_scale), *for_vae]
            codec = self.latent_codec(store, TINY_SD_VAE, name="osediff", pieces=for_vae)
            unet = self.load_unet(store, target, *for_unet)
            return OSEDiff(unet, codec, self.load_prompt(store, unet), self, self.load_refiner(store, codec))

    def step(self, z: torch.Tensor) -> torch.Tensor:
        """From scaled latents (B,4,h,w) to clean ones, float32."""
        return x0_from_eps(z, self.refined(z, self.ask(self.unet, z)), self.alpha_bar)
