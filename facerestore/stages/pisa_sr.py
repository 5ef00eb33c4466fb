"""PiSA-SR: two adapters of Stable Diffusion, one for pixels and one for meaning, and a knob for each."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from facerestore.core.precision import FP32, Target
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.components import Piece
from facerestore.diffusion.configs import TINY_SD_VAE
from facerestore.diffusion.x0 import x0_from_residual
from facerestore.nets.residual_refiner import ResidualRefiner
from facerestore.stages.one_step import require_parts
from facerestore.stages.sd21 import SD21Config, SD21Stage

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

_PIXEL, _SEMANTIC = (
    tuple(f"default_{blocks}_{kind}" for blocks in ("encoder", "decoder", "others"))
    for kind in ("pix", "sem")
)


class PiSASR(SD21Stage):
    """Subtract what the UNet finds wrong, the damage of pixels and the lack of detail weighted apart.

    With z the latent, p what the UNet with the first adapter says and q what it says with both,
    `z_0 = z - (lambda_pix * p + lambda_sem * (q - p))`. The autoencoder is the base model's.

    Reference:
        Sun et al., CVPR 2025, arXiv:2412.03017; GitHub csslc/PiSA-SR `pisasr.py`.
    Parity:
        The official forward pass on the same checkpoint with the posterior's mode, 1e-4 abs in float32, in
        one piece; its tiles are blended with weights centred half a cell higher than here.

    Args:
        unet: Stable Diffusion 2.1-base's UNet with both adapters merged; with the first alone where
            lambda_sem is 0.
        codec: its autoencoder.
        prompt: (77,1024) the embedding of an empty prompt.
        config: the settings.
        refiner: corrects the weighted answer; None leaves it.
        pixel_unet: the UNet with the first adapter alone, where the knobs need both answers.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(SD21Config):
        """Settings; the defaults are what was trained. One call of a UNet, or two where the knobs need it."""

        timestep: int = 1
        """Of 1000; no more than a constant that the UNet is told. Adapters are valid at their own only."""
        adapter: str | None = "pisa-sr/weights"
        """The published pickle, or what `weights import` makes of it; None leaves the base model."""
        lambda_pix: float = 1.0
        """How much of the damage is taken out: noise, blur, blocks."""
        lambda_sem: float = 1.0
        """How much detail is invented. On faces, more changes who it is. Other values than `lambda_pix` and 0
        keep two UNets in memory and ask both."""
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

        def build(self, store: "WeightStore", target: Target = FP32) -> "PiSASR":
            """Load everything, what the knobs need merged in float32.

            Raises:
                ConfigError: if the checkpoint says that it was made for another timestep.
                KeyMismatch: if the checkpoint has not exactly the parts that PiSA-SR's have: a pixel adapter
                    and a semantic one, of the UNet.
            """
            own, for_vae = self.own_pieces(store)
            pixel: list[Piece] = []
            semantic: list[Piece] = []
            if self.adapter is not None:
                (adapter,) = self.read_pieces(store, self.adapter, "unet", rank=self.lora_rank)
                require_parts(adapter, names=(*_PIXEL, *_SEMANTIC))
                pixel = [(adapter.named(*_PIXEL), self.lora_scale)]
                semantic = [(adapter.named(*_SEMANTIC), self.lora_scale)] if self.lambda_sem != 0 else []
            codec = self.latent_codec(store, TINY_SD_VAE, name="pisa_sr", pieces=for_vae)
            unet = self.load_unet(store, target, *pixel, *semantic, *own)
            two = bool(semantic) and self.lambda_sem != self.lambda_pix
            pixel_unet = self.load_unet(store, target, *pixel, *own) if two else None
            refiner, prompt = self.load_refiner(store, codec), self.load_prompt(store, unet)
            return PiSASR(unet, codec, prompt, self, refiner, pixel_unet)

    def __init__(
        self,
        unet: nn.Module,
        codec: LatentCodec,
        prompt: torch.Tensor,
        config: Config,
        refiner: ResidualRefiner | None = None,
        pixel_unet: nn.Module | None = None,
    ) -> None:
        super().__init__(unet, codec, prompt, config, refiner)
        self.knobs = (config.lambda_pix, config.lambda_sem)
        self.pixel_unet: Any = pixel_unet

    def step(self, z: torch.Tensor) -> torch.Tensor:
        """From scaled latents (B,4,h,w) to clean ones, float32."""
        pix, sem = self.knobs
        said = self.ask(self.unet, z)
        if self.pixel_unet is None:
            residual = pix * said
        else:
            pixel = self.ask(self.pixel_unet, z)
            residual = pix * pixel + sem * (said - pixel)
        return x0_from_residual(z, self.refined(z, residual))
