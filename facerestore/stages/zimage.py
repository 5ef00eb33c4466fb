"""Z-Image-Turbo as a one-step restorer: its transformer is asked once, at a fixed noise level and prompt."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from facerestore.core.errors import ConfigError, UnsupportedDtype
from facerestore.core.precision import DtypeName, Layout, choose_layout
from facerestore.core.state import RestorationState
from facerestore.diffusion import backbones
from facerestore.diffusion.codec import LatentCodec, Posterior, through_latents
from facerestore.diffusion.components import component
from facerestore.diffusion.configs import TINY_FLUX_VAE, TINY_ZIMAGE_TRANSFORMER
from facerestore.diffusion.constant_prompt import constant_prompt
from facerestore.diffusion.latent_tiling import predict_tiled
from facerestore.diffusion.lora import load_adapter, merge_adapter, require_made_for
from facerestore.diffusion.x0 import x0_from_zimage
from facerestore.diffusion.zimage_constants import FoldedZImage, fold_constants
from facerestore.stages.base import ImageStage, StageConfig, StageContract

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

MULTIPLE_PX = 16  # 8 px a latent cell, 2 x 2 cells a token
_TINY_PROMPT_TOKENS = 7


class ZImage(ImageStage):
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
    """

    prompt: torch.Tensor

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(StageConfig):
        """Settings."""

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
        prompt: str | None = "z-image-turbo/prompt"
        """File with the embedding of the prompt, (L,2560) as the tensor `prompt`; None makes one."""
        adapters: tuple[str, ...] = ()
        """Adapters, merged one after the other: each was trained on what the ones before had made."""
        adapter_scale: float | None = None
        """alpha / rank of adapters whose files do not say alpha."""
        posterior: Posterior = "mode"
        """Whether the latent is the mean, or drawn with the seed of the face as the official scripts do."""
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

        def contract(self) -> StageContract:
            """A diffusion model: it invents detail."""
            return StageContract(generative=True)

        def weights(self) -> tuple[str, ...]:
            """Transformer, autoencoder, prompt, and the adapters in their order."""
            names = (self.transformer, self.vae, self.prompt, *self.adapters)
            return tuple(name for name in names if name is not None)

        def build(self, store: "WeightStore") -> "ZImage":
            """Load, merge the adapters, and fold, in the dtype in which the transformer is stored.

            Raises:
                ConfigError: if an adapter says that it was made for another sigma, or no scale is known.
                KeyMismatch: if one key of an adapter finds no place.
            """
            transformer = component(
                store, self.transformer, backbones.zimage_transformer, TINY_ZIMAGE_TRANSFORMER
            )
            vae = component(store, self.vae, backbones.sd_vae, TINY_FLUX_VAE)
            for name in self.adapters:
                adapter = load_adapter(store.verify(name))
                require_made_for(adapter, sigma=self.sigma)
                for part in adapter.components:
                    net = vae if part == "vae" else transformer
                    merge_adapter(net, adapter.part(part), scale=self.adapter_scale)
            width = transformer.config.cap_feat_dim
            prompt = constant_prompt(store, self.prompt, tokens=_TINY_PROMPT_TOKENS, width=width)
            return ZImage(transformer, LatentCodec.of(vae, name="zimage"), prompt, self)

        def tiny(self) -> Self:
            """Two layers, random weights and a made prompt."""
            return replace(self, transformer=None, vae=None, prompt=None, adapters=())

    def __init__(
        self, transformer: nn.Module, codec: LatentCodec, prompt: torch.Tensor, config: Config
    ) -> None:
        super().__init__()
        self.config: ZImage.Config = config
        self.codec = codec
        self.transformer: Any = (
            fold_constants(transformer, prompt, config.sigma) if config.fold else transformer
        )
        self.register_buffer("prompt", prompt, persistent=False)
        self.layout = Layout(dtype=_dtype(transformer), channels_last=False, batch=1)

    def place(self, device: torch.device, dtype: DtypeName, batch: int | None = None) -> Self:
        """Move both networks to the device in their measured layouts.

        Raises:
            UnsupportedDtype: for fp16.
        """
        if dtype == "fp16":
            raise UnsupportedDtype(
                "Z-Image was trained in bf16, and what passes between its layers is not known to stay within "
                "the range of fp16 (65504); use bf16 or fp32"
            )
        self.layout = choose_layout("zimage", device, dtype)
        if batch is not None:
            self.layout = replace(self.layout, batch=batch)
        self.layout.place(self.transformer, device)
        choose_layout("sd_vae", device, dtype).place(self.codec, device)
        self.prompt = self.prompt.to(device)
        return self

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
        return x0_from_zimage(z, self.predict(z), self.config.sigma)

    def restore(self, image: torch.Tensor, state: RestorationState) -> torch.Tensor:
        """(B,3,H,W) float32 in [0,1] of any size to the same form; not yet clamped."""
        return through_latents(
            self.codec,
            image,
            state.seeds,
            self.step,
            posterior=self.config.posterior,
            batch=self.layout.batch,
            multiple_px=MULTIPLE_PX,
        )


def _dtype(net: nn.Module) -> torch.dtype:
    return next((parameter.dtype for parameter in net.parameters()), torch.float32)
