"""OMGSR-F: the degraded latent is taken for a noisy one in the middle of FLUX.1-dev's schedule."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import nn
from torch.nn import functional as F

from facerestore.core.errors import ConfigError, ShapeError, WeightsError
from facerestore.core.precision import FP32, Target
from facerestore.core.seeding import generator
from facerestore.core.state import RestorationState
from facerestore.diffusion import backbones
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.components import Piece, component
from facerestore.diffusion.configs import TINY_FLUX_TRANSFORMER, TINY_FLUX_VAE, TINY_TAEF1
from facerestore.diffusion.latent_tiling import predict_tiled
from facerestore.diffusion.schedule import flux_sigma
from facerestore.diffusion.x0 import x0_from_velocity
from facerestore.imaging.resize import resize
from facerestore.nets.residual_refiner import ResidualRefiner
from facerestore.stages.one_step import MADE, OneStepConfig, OneStepStage

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

PATCH = 2  # latent cells along each side of a token
PROMPT_KEYS = ("prompt_embeds", "pooled_prompt_embeds")
_TINY_TOKENS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class FluxPrompt:
    """What FLUX's transformer is told besides the latent, the same for every picture.

    Attributes:
        tokens: hidden states of T5, (L,4096).
        pooled: summary of CLIP, (768).
    """

    tokens: torch.Tensor
    pooled: torch.Tensor


class OMGSRF(OneStepStage):
    """Take out what the transformer calls noise, at the noise level whose ratio degraded latents have.

    The encoder was tuned to bring latents there, the decoder is the base model's. With z the latent and v
    the velocity, which points from the clean latent to noise, `z_0 = z - sigma * v(z, sigma)`. The adapters
    were trained on pictures of 1024 px; smaller ones are enlarged to that and brought back, as the official
    script does it.

    Reference:
        OMGSR, 2025, arXiv:2508.08227; GitHub wuer5/OMGSR `infer/omgsr_f_infer_model.py`.
    Parity:
        The official forward pass on the same weights with the posterior's mode, 1e-5 abs in float32. It
        numbers the tokens of every picture and tile as if it were a whole square of its process size; here
        each gets the positions of its own rows and columns, without which only such squares work.

    Args:
        transformer: FLUX.1-dev's `FluxTransformer2DModel`, the adapter merged.
        codec: its autoencoder, the adapter of the encoder merged.
        prompt: the embedding of an empty prompt.
        config: the settings.
        refiner: corrects the transformer's answer; None leaves it.

    Raises:
        ConfigError: if the transformer takes no guidance, as FLUX.1-schnell's.
        ShapeError: if transformer, autoencoder and prompt do not fit each other.
    """

    tokens: torch.Tensor
    pooled: torch.Tensor

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(OneStepConfig):
        """Settings; the defaults are those of the model for 1024 px."""

        backbone: ClassVar[str] = "flux"
        tiny_codec: ClassVar[Mapping[str, Any]] = TINY_TAEF1

        sigma: float = flux_sigma(244)
        """Noise level in (0,1] for which the picture is taken, 0.505112. Adapters are valid at the one that
        they were trained at, and at no other; the first release, of August 2025, had `flux_sigma(295)`."""
        transformer: str | None = "flux1-dev/transformer"
        """Folder of the transformer in the manifest; None makes a tiny one, for tests."""
        vae: str | None = "flux1-dev/vae"
        """Folder of the autoencoder; None makes a tiny one."""
        prompt: str | None = "flux1-dev/prompt-empty"
        """File with the tensors `prompt_embeds` (512,4096) and `pooled_prompt_embeds` (768); None makes
        them."""
        vae_lora: str | None = "omgsr-f/vae-lora"
        """Adapter of the encoder, its keys relative to it; None leaves the base model's."""
        transformer_lora: str | None = "omgsr-f/flux-lora"
        """Adapter of the transformer; None leaves the base model's."""
        lora_scale: float = 1.0
        """alpha / rank of both adapters: 64 / 64. A file that says otherwise is refused."""
        guidance_scale: float = 1.0
        """What the transformer is told of guidance, which FLUX.1-dev has learned to follow in one call."""
        small_vae: str | None = "taef1"
        """Folder of the small autoencoder; None makes one."""
        least_px: int = 1024
        """Pictures whose shorter side has fewer pixels are enlarged to this, worked, and brought back."""
        tile: int = 128
        """Side of a tile, latent cells of 8 px: larger areas than its square are restored in tiles."""
        overlap: int = 64
        """Of neighbouring tiles, latent cells."""

        def __post_init__(self) -> None:
            if not 0 < self.sigma <= 1:
                raise ConfigError(f"sigma lies above 0 and not above 1, got {self.sigma}")
            if self.tile < PATCH or self.tile % PATCH or not 0 <= self.overlap < self.tile:
                raise ConfigError(
                    f"a tile has an even side, and the overlap is smaller: got {self.tile}, {self.overlap}"
                )

        @property
        def noise_timestep(self) -> float:
            """Sigma in thousandths."""
            return 1000 * self.sigma

        @property
        def worked_px(self) -> int:
            """Side at which a face of 512 px is worked."""
            return max(512, self.least_px)

        def made_for(self) -> dict[str, float]:
            """The noise level."""
            return {"sigma": self.sigma}

        def files(self) -> tuple[str | None, ...]:
            """Transformer, prompt, and the adapters of encoder, where it is in use, and transformer."""
            vae_lora = self.vae_lora if self.codec != "tiny" else None
            return (self.transformer, self.prompt, vae_lora, self.transformer_lora)

        def build(self, store: "WeightStore", target: Target = FP32) -> "OMGSRF":
            """Load everything, the adapters merged in float32.

            Raises:
                ConfigError: if an adapter says that it was made for another sigma.
                KeyMismatch: if an adapter was made for another network, or for another scale.
                ShapeError: if the prompt is another model's.
                UnsupportedDtype: for fp16.
                WeightsError: if the file of the prompt has other tensors.
            """
            for_net, for_vae = self.own_pieces(store)
            _, _, vae_lora, transformer_lora = self.files()
            if transformer_lora is not None:
                for_net = [self._piece(store, transformer_lora), *for_net]
            if vae_lora is not None:
                adapter, scale = self._piece(store, vae_lora)
                for_vae = [(adapter.below("encoder"), scale), *for_vae]
            codec = self.latent_codec(store, TINY_FLUX_VAE, name="omgsr_f", pieces=for_vae)
            transformer = component(
                store,
                self.transformer,
                backbones.flux_transformer,
                TINY_FLUX_TRANSFORMER,
                dtype=target.layout(self.backbone).weights,
                pieces=for_net,
            )
            prompt = _made_prompt(transformer) if self.prompt is None else _read_prompt(store, self.prompt)
            return OMGSRF(transformer, codec, prompt, self, self.load_refiner(store, codec))

        def tiny(self) -> Self:
            """Both networks at their smallest with random weights, a made prompt, pictures as they are."""
            refiner = None if self.refiner is None else MADE
            made = replace(self, transformer=None, vae=None, small_vae=None, prompt=None, refiner=refiner)
            return replace(made, vae_lora=None, transformer_lora=None, adapters=(), least_px=16)

        def _piece(self, store: "WeightStore", name: str) -> Piece:
            (adapter,) = self.read_pieces(store, name, "")
            return adapter, self.lora_scale

    def __init__(
        self,
        transformer: nn.Module,
        codec: LatentCodec,
        prompt: FluxPrompt,
        config: Config,
        refiner: ResidualRefiner | None = None,
    ) -> None:
        super().__init__(codec, config, refiner)
        self.config: OMGSRF.Config = config
        self.transformer: Any = transformer
        _require_fit(self.transformer.config, codec, prompt)
        self.register_buffer("tokens", prompt.tokens.float(), persistent=False)
        self.register_buffer("pooled", prompt.pooled.float(), persistent=False)

    @property
    def multiple_px(self) -> int:
        """8 px a latent cell, 2 x 2 cells a token."""
        return PATCH * self.codec.factor

    def predict(self, z: torch.Tensor) -> torch.Tensor:
        """The velocity `noise - clean` at latents (B,C,h,w) with even sides, float32.

        Large latents go through in tiles, each with positions of its own. In bf16 the transformer rounds
        sigma to timestep 504, as it does in the official script.
        """
        return predict_tiled(self._predict, z, tile=self.config.tile, overlap=self.config.overlap)

    def _predict(self, z: torch.Tensor) -> torch.Tensor:
        count, rows, columns = len(z), z.shape[2] // PATCH, z.shape[3] // PATCH
        dtype = self.layout.dtype
        velocity = self.transformer(
            hidden_states=pack(z.to(dtype)),
            timestep=torch.full((count,), self.config.sigma, device=z.device),
            guidance=torch.full((count,), self.config.guidance_scale, device=z.device),
            encoder_hidden_states=self.tokens.to(dtype).expand(count, -1, -1),
            pooled_projections=self.pooled.to(dtype).expand(count, -1),
            txt_ids=torch.zeros(len(self.tokens), 3, device=z.device),
            img_ids=positions(rows, columns).to(z.device),
            return_dict=False,
        )[0]
        return unpack(velocity, rows, columns)

    def step(self, z: torch.Tensor) -> torch.Tensor:
        """From scaled latents (B,C,h,w) to clean ones, float32."""
        return x0_from_velocity(z, self.refined(z, self.predict(z)), self.config.sigma)

    def restore(self, image: torch.Tensor, state: RestorationState) -> torch.Tensor:
        """(B,3,H,W) float32 in [0,1] of any size to the same form; not yet clamped."""
        height, width = image.shape[2:]
        enlarge = max(1.0, self.config.least_px / min(height, width))
        entered = resize(image, round(height * enlarge), round(width * enlarge))
        return resize(super().restore(entered, state), height, width)


def pack(z: torch.Tensor) -> torch.Tensor:
    """Latents (B,C,h,w) as tokens (B,h/2*w/2,4C): row by row, a token's numbers by channel, row, column."""
    return F.pixel_unshuffle(z, PATCH).flatten(2).mT


def unpack(tokens: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Tokens (B,rows*columns,4C) as latents (B,C,2*rows,2*columns): undoes `pack`."""
    return F.pixel_shuffle(tokens.mT.unflatten(2, (rows, columns)), PATCH)


def positions(rows: int, columns: int) -> torch.Tensor:
    """Where each token lies, (rows*columns,3) float32: zero, its row, its column."""
    return torch.cartesian_prod(torch.zeros(1), torch.arange(float(rows)), torch.arange(float(columns)))


def _require_fit(config: Any, codec: LatentCodec, prompt: FluxPrompt) -> None:
    """Check a transformer's settings against the latents and the prompt that it is to work on."""
    if not config.guidance_embeds:
        raise ConfigError(
            "this FLUX transformer takes no guidance, as that of FLUX.1-schnell; OMGSR-F was trained on "
            "FLUX.1-dev: give its folder"
        )
    channels, _ = codec.form
    if config.in_channels != channels * PATCH**2:
        raise ShapeError(
            f"a FLUX transformer with {channels * PATCH**2} channels a token, for latents of {channels}",
            (config.in_channels,),
            "OMGSR-F was trained on FLUX.1-dev: its Fill, Depth and Canny relatives take more.",
        )
    width, pooled = config.joint_attention_dim, config.pooled_projection_dim
    hint = "Save what FLUX.1-dev's text encoders say to an empty prompt, without the axis of the batch."
    if prompt.tokens.ndim != 2 or prompt.tokens.shape[1] != width:
        raise ShapeError(f"prompt_embeds (L,{width})", prompt.tokens.shape, hint)
    if prompt.pooled.shape != (pooled,):
        raise ShapeError(f"pooled_prompt_embeds ({pooled})", prompt.pooled.shape, hint)


def _made_prompt(transformer: Any) -> FluxPrompt:
    draw, config = generator(0, "omgsr_f prompt"), transformer.config
    return FluxPrompt(
        tokens=torch.randn(_TINY_TOKENS, config.joint_attention_dim, generator=draw),
        pooled=torch.randn(config.pooled_projection_dim, generator=draw),
    )


def _read_prompt(store: "WeightStore", name: str) -> FluxPrompt:
    state = store.load(name)
    if set(state) != set(PROMPT_KEYS):
        raise WeightsError(
            f"{name}: expected the tensors {' and '.join(PROMPT_KEYS)}, got "
            f"{', '.join(sorted(state)) or 'none'}; `FluxPipeline.encode_prompt` of diffusers returns them"
        )
    tokens, pooled = (state[key] for key in PROMPT_KEYS)
    return FluxPrompt(tokens=tokens, pooled=pooled)
