"""TADSR: one step of Stable Diffusion 2.1 whose timestep says how much may be invented; and BVI's refiner."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from facerestore.core.errors import ConfigError, KeyMismatch
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.lora import merge_adapter
from facerestore.diffusion.time_vae import add_time, fold_time, time_keys
from facerestore.diffusion.x0 import x0_from_scaled_residual
from facerestore.nets.residual_refiner import ResidualRefiner
from facerestore.stages.sd21 import SD21Config, SD21Stage, read_pieces
from facerestore.weights.load import load_into
from facerestore.weights.seeded import fill_seeded

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

MADE = ""
"""As the name of a refiner: one with random weights, for tests."""
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
        """File with the adapters of UNet and encoder and with the time layers; None leaves the networks."""
        lora_scale: float = 2.0
        """alpha / rank of the adapters: peft's default of 8, which training left, / 4."""
        refiner: str | None = None
        """File of BVI's refiner; None does without one, and an empty name makes one, for tests."""

        def __post_init__(self) -> None:
            SD21Config.__post_init__(self)
            if self.timestep < 1:
                raise ConfigError(f"timestep lies in 1 to 999, got {self.timestep}")

        def adapters(self) -> tuple[str | None, ...]:
            """TADSR's file, and the refiner's."""
            return (self.adapter, self.refiner or None)

        def tiny(self) -> Self:
            """All networks at their smallest with random weights, and a made prompt."""
            refiner = None if self.refiner is None else MADE
            return replace(self, unet=None, vae=None, prompt=None, adapter=None, refiner=refiner)

        def build(self, store: "WeightStore") -> "TADSR":
            """Load everything, merge and fold in float32; `place` chooses the dtype.

            Raises:
                KeyMismatch: if the file lacks an adapter or a time layer, has what belongs to neither, or was
                    made for another network.
                ConfigError: if the autoencoder has no time layers.
            """
            unet, vae, prompt = self.base(store)
            if self.vae is None:
                add_time(vae)
                fill_seeded(vae)
            if self.adapter is not None:
                _merge(store, self.adapter, {"unet": unet, "vae": vae}, self.lora_scale)
            fold_time(vae, self.timestep)
            refiner = None
            if self.refiner is not None:
                channels = vae.config.latent_channels
                refiner = _refiner(store, self.refiner, ResidualRefiner.Config(channels=channels))
            return TADSR(unet, LatentCodec.of(vae, name="tadsr"), prompt, self, refiner)

    def __init__(
        self,
        unet: nn.Module,
        codec: LatentCodec,
        prompt: torch.Tensor,
        config: Config,
        refiner: ResidualRefiner | None = None,
    ) -> None:
        super().__init__(unet, codec, prompt, config)
        self.refiner = refiner

    def step(self, z: torch.Tensor) -> torch.Tensor:
        """From scaled latents (B,4,h,w) to clean ones, float32; the refiner sees them whole."""
        residual = self.ask(self.unet, z)
        if self.refiner is not None:
            steps = torch.full((len(z),), self.config.timestep, device=z.device)
            residual = (
                residual + self.refiner(self.layout.tensor(z), self.layout.tensor(residual), steps).float()
            )
        return x0_from_scaled_residual(z, residual, self.alpha_bar)


def _merge(store: "WeightStore", name: str, nets: dict[str, Any], scale: float) -> None:
    """Merge what `tadsr.pkl` has, which must be every adapter and every tensor that was trained in full."""
    for adapter, (component, net) in zip(read_pieces(store, name, *nets), nets.items(), strict=True):
        own = {whole.parameter for whole in adapter.wholes}
        missing = (
            [f"{component}.{key}" for key in time_keys(net) if key not in own] if component == "vae" else []
        )
        missing += [f"{component} adapter {one}" for one in _POSITIONS[component] if one not in adapter.names]
        if missing:
            raise KeyMismatch(name, missing, [], [])
        merge_adapter(net, adapter, scale=scale)


def _refiner(store: "WeightStore", name: str, config: ResidualRefiner.Config) -> ResidualRefiner:
    """The refiner from its file, or a made one."""
    net = ResidualRefiner(config).eval()
    if name == MADE:
        fill_seeded(net)
    else:
        load_into(net, store.load(name), name)
    return net
