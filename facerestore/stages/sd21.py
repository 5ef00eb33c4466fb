"""What the one-step restorers on Stable Diffusion 2.1 with a constant prompt share: all but their formula."""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from facerestore.core.errors import ConfigError, KeyMismatch
from facerestore.core.precision import DtypeName, Layout, choose_layout
from facerestore.core.state import RestorationState
from facerestore.diffusion import backbones
from facerestore.diffusion.codec import LatentCodec, Posterior, through_latents
from facerestore.diffusion.components import component
from facerestore.diffusion.configs import TINY_SD_VAE, TINY_UNET
from facerestore.diffusion.constant_prompt import constant_prompt
from facerestore.diffusion.latent_tiling import predict_tiled
from facerestore.diffusion.lora import Adapter, load_adapter
from facerestore.diffusion.schedule import sd_alpha_bar
from facerestore.stages.base import ImageStage, StageConfig, StageContract

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

_TOKENS = 77  # of CLIP's text encoder, always


@dataclass(frozen=True, slots=True, kw_only=True)
class SD21Config(StageConfig):
    """Settings that all of them have.

    Raises:
        ConfigError: if the timestep or the tiles are out of range.
    """

    timestep: int
    """Of 1000. Adapters are valid at the one that they were trained at, and at no other."""
    unet: str | None = "sd21-base/unet"
    """Folder of the UNet in the manifest; None makes a tiny one, for tests."""
    vae: str | None = "sd21-base/vae"
    """Folder of the autoencoder; None makes a tiny one."""
    prompt: str | None = "sd21-base/prompt-empty"
    """File with the embedding of the prompt, (77,1024) as the tensor `prompt`; None makes one."""
    posterior: Posterior = "mode"
    """Whether the latent is the mean, or drawn with the seed of the face as the official scripts do."""
    tile: int = 96
    """Side of a tile, latent cells of 8 px: larger areas than its square go through the UNet in tiles."""
    overlap: int = 32
    """Of neighbouring tiles, latent cells."""

    def __post_init__(self) -> None:
        if not 0 <= self.timestep <= 999:
            raise ConfigError(f"timestep lies in 0 to 999, got {self.timestep}")
        if not 0 <= self.overlap < self.tile:
            raise ConfigError(f"overlap lies in 0 to {self.tile - 1}, got {self.overlap}")

    def contract(self) -> StageContract:
        """A diffusion model: it invents detail."""
        return StageContract(generative=True)

    def adapters(self) -> tuple[str | None, ...]:
        """The files that make a restorer of the base model."""
        return ()

    def weights(self) -> tuple[str, ...]:
        """The base model's networks, the prompt, and the adapters."""
        names = (self.unet, self.vae, self.prompt, *self.adapters())
        return tuple(name for name in names if name is not None)

    def base(self, store: "WeightStore") -> tuple[Any, Any, torch.Tensor]:
        """UNet and autoencoder in float32, without adapters, and the prompt."""
        unet = component(store, self.unet, backbones.sd_unet, TINY_UNET, dtype=torch.float32)
        vae = component(store, self.vae, backbones.sd_vae, TINY_SD_VAE, dtype=torch.float32)
        width = unet.config.cross_attention_dim
        return unet, vae, constant_prompt(store, self.prompt, tokens=_TOKENS, width=width)


class SD21Stage(ImageStage):
    """Abstract: encode without adding noise, ask the UNet once, take its answer by `step`, decode.

    Args:
        unet: Stable Diffusion 2.1-base's `UNet2DConditionModel`, adapters merged.
        codec: its autoencoder, adapters merged.
        prompt: (77,width) what the UNet is always told.
        config: the settings.
    """

    prompt: torch.Tensor

    def __init__(self, unet: nn.Module, codec: LatentCodec, prompt: torch.Tensor, config: SD21Config) -> None:
        super().__init__()
        self.config: SD21Config = config
        self.unet: Any = unet
        self.codec = codec
        self.alpha_bar = float(sd_alpha_bar()[config.timestep])
        self.register_buffer("prompt", prompt, persistent=False)
        self.layout = Layout(dtype=torch.float32, channels_last=False, batch=1)

    def place(self, device: torch.device, dtype: DtypeName, batch: int | None = None) -> Self:
        """Move the networks to the device in their measured layouts."""
        self.layout = choose_layout("sd21_unet", device, dtype)
        if batch is not None:
            self.layout = replace(self.layout, batch=batch)
        for net in self.children():
            if net is not self.codec:
                self.layout.place(net, device)
        choose_layout("sd_vae", device, dtype).place(self.codec, device)
        self.prompt = self.prompt.to(device)
        return self

    def ask(self, unet: Any, z: torch.Tensor) -> torch.Tensor:
        """What a UNet says of latents (B,4,h,w), float32; large ones tile by tile."""
        prompt = self.prompt.to(self.layout.dtype).expand(len(z), -1, -1)
        steps = torch.full((len(z),), self.config.timestep, device=z.device)

        def predict(tile: torch.Tensor) -> torch.Tensor:
            return unet(self.layout.tensor(tile), steps, encoder_hidden_states=prompt, return_dict=False)[0]

        return predict_tiled(predict, z, tile=self.config.tile, overlap=self.config.overlap)

    @abstractmethod
    def step(self, z: torch.Tensor) -> torch.Tensor:
        """From scaled latents (B,4,h,w) to clean ones, float32."""

    def restore(self, image: torch.Tensor, state: RestorationState) -> torch.Tensor:
        """(B,3,H,W) float32 in [0,1] of any size to the same form; not yet clamped."""
        return through_latents(
            self.codec,
            image,
            state.seeds,
            self.step,
            posterior=self.config.posterior,
            batch=self.layout.batch,
        )


def read_pieces(store: "WeightStore", name: str, *components: str) -> tuple[Adapter, ...]:
    """The adapters in one file, published or imported, for exactly these components.

    Args:
        store: where weights are found.
        name: of the file in the manifest.
        components: such as "unet"; "" where the file's keys name none.

    Raises:
        KeyMismatch: if the file lacks one of them or has others, so that nothing in it is passed over.
        WeightsError: if it cannot be read.
    """
    adapter = load_adapter(store.verify(name))
    found = set(adapter.components)
    if found != set(components):
        raise KeyMismatch(name, sorted(set(components) - found), sorted(found - set(components)), [])
    return tuple(adapter.part(part) for part in components)


def require_parts(adapter: Adapter, *, names: Iterable[str], wholes: Iterable[str] = ()) -> None:
    """Check that an adapter is made of exactly these named ones and these tensors trained whole.

    Raises:
        KeyMismatch: if something is missing or too much.
    """
    wanted = {f"adapter {name}" for name in names} | set(wholes)
    found = {f"adapter {name}" for name in adapter.names} | {whole.parameter for whole in adapter.wholes}
    if found != wanted:
        raise KeyMismatch(adapter.source, sorted(wanted - found), sorted(found - wanted), [])
