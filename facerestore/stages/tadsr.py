"""TADSR: one step of Stable Diffusion 2.1 whose timestep says how much may be invented; and BVI's refiner."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch

from facerestore.core.errors import ConfigError, KeyMismatch
from facerestore.core.precision import FP32, Target
from facerestore.diffusion.backbones import time_vae
from facerestore.diffusion.configs import TINY_SD_VAE
from facerestore.diffusion.lora import Adapter
from facerestore.diffusion.time_vae import fold_time, time_keys
from facerestore.diffusion.x0 import x0_from_scaled_residual
from facerestore.stages.sd21 import SD21Config, SD21Stage

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

REFINER = "noise_refiner"
"""What BVI's checkpoint has beside TADSR's networks, for `refiner`."""
_POSITIONS = {"unet": ("default_decoder", "default_encoder", "default_others"), "vae": ("default_encoder",)}


class TADSR(SD21Stage):
    """Encode for a timestep, ask the UNet at that timestep for what to take off, decode.

    With z the latent that the time-aware encoder makes and v the UNet's answer, a residual and no noise,
    `z_0 = z / sqrt(a) - v(z, t)`, a the cumulative signal variance of timestep t. It was trained for every t
    at once: low ones keep to what is there, high ones invent. BVI adds `ResidualRefiner(z, v, t)` to v.

    Reference:
        Zhang et al., 2025, arXiv:2508.16557; GitHub zty557/TADSR `tadsr.py`. BVI: NTIRE 2026; GitHub
        zhengchen1999/NTIRE2026_ImageSR_x4, team 28.
    Parity:
        Both official forward passes on the same weights with the posterior's mode, 2e-5 abs in float32.
        Deviations: one constant prompt, where the authors' script lets a tagger describe the picture; in
        tiles, the UNet is told the timestep, where TADSR's stops with an error, and the picture's corners
        keep their prediction, which BVI's floor under the tile weights takes away.

    Args:
        unet: Stable Diffusion 2.1-base's UNet, the adapters merged.
        codec: TADSR's autoencoder, the adapter merged and the timestep folded in.
        prompt: (77,1024) the embedding of an empty prompt.
        config: the settings.
        refiner: corrects the UNet's answer; None leaves it.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(SD21Config):
        """Settings; the defaults are those of the authors' script.

        Raises:
            ConfigError: if the timestep or the tiles are out of range.
        """

        timestep: int = 500
        """From 1, which keeps to what is there, to 999, which invents most; any is valid."""
        vae: str | None = "tadsr/time-vae"
        """Folder of the time-aware autoencoder; None makes a tiny one."""
        adapter: str | None = "tadsr/weights"
        """File with the adapters of UNet and encoder and with the time layers, which may be BVI's where there
        is a refiner; None leaves the networks."""
        lora_scale: float = 2.0
        """alpha / rank of the adapters: peft's default of 8, which training left, / 4."""
        lora_rank: int = 4
        """Rank of the adapters, on which their scale hangs, because their file does not say alpha."""

        def __post_init__(self) -> None:
            SD21Config.__post_init__(self)
            if self.timestep < 1:
                raise ConfigError(f"timestep lies in 1 to 999, got {self.timestep}")

        def published(self) -> tuple[str | None, ...]:
            """TADSR's file."""
            return (self.adapter,)

        def tiny(self) -> Self:
            """All networks at their smallest with random weights, and a made prompt."""
            return self.made(adapter=None)

        def build(self, store: "WeightStore", target: Target = FP32) -> "TADSR":
            """Load everything, merge and fold in float32.

            Raises:
                KeyMismatch: if the file lacks an adapter or a time layer, has what belongs to neither, or was
                    made for another network.
                ConfigError: if the autoencoder has no time layers.
            """
            for_unet, for_vae = self.own_pieces(store)
            of_vae: Adapter | None = None
            if self.adapter is not None:
                besides = REFINER if self.refiner else ""
                of_unet, of_vae = self.read_pieces(
                    store, self.adapter, "unet", "vae", rank=self.lora_rank, besides=besides
                )
                _require_positions(self.adapter, {"unet": of_unet, "vae": of_vae})
                for_unet = [(of_unet, self.lora_scale), *for_unet]
                for_vae = [(of_vae, self.lora_scale), *for_vae]

            def fold(vae: Any) -> None:
                if of_vae is not None:
                    own = {whole.parameter for whole in of_vae.wholes}
                    missing = [f"vae.{key}" for key in time_keys(vae) if key not in own]
                    if missing:
                        raise KeyMismatch(of_vae.source, missing, [], [])
                fold_time(vae, self.timestep)

            codec = self.latent_codec(
                store, TINY_SD_VAE, name="tadsr", pieces=for_vae, finish=fold, make=time_vae
            )
            unet = self.load_unet(store, target, *for_unet)
            return TADSR(unet, codec, self.load_prompt(store, unet), self, self.load_refiner(store, codec))

    def step(self, z: torch.Tensor) -> torch.Tensor:
        """From scaled latents (B,4,h,w) to clean ones, float32; the refiner sees them whole."""
        return x0_from_scaled_residual(z, self.refined(z, self.ask(self.unet, z)), self.alpha_bar)


def _require_positions(name: str, adapters: Mapping[str, Adapter]) -> None:
    """Check that `tadsr.pkl` has every adapter that training made."""
    missing = [
        f"{component} adapter {one}"
        for component, adapter in adapters.items()
        for one in _POSITIONS[component]
        if one not in adapter.names
    ]
    if missing:
        raise KeyMismatch(name, missing, [], [])
