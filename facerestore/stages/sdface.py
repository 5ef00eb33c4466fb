"""SDFace: the UNet of SDXL-Turbo, tuned to return the clean latent of a face in one call."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import nn

from facerestore.core.errors import ConfigError, ShapeError, WeightsError
from facerestore.core.precision import FP32, Target
from facerestore.core.seeding import generator
from facerestore.diffusion import backbones
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.components import component
from facerestore.diffusion.configs import TINY_SDXL_UNET, TINY_SDXL_VAE
from facerestore.diffusion.x0 import x0_direct
from facerestore.nets.residual_refiner import ResidualRefiner
from facerestore.stages.one_step import MADE, OneStepConfig, OneStepStage

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

TIMESTEP = 999.0  # all that the UNet is told of noise; no schedule enters
PROMPT = ("sdface/prompt-embeds", "sdface/text-embeds", "sdface/time-ids")
_TINY_TOKENS = 77


@dataclass(frozen=True, slots=True, kw_only=True)
class SDXLPrompt:
    """What SDXL's UNet is told besides the latent, the same for every picture; batch 1 each.

    Attributes:
        tokens: hidden states of the two text encoders, (1,77,2048).
        pooled: summary of the second one, (1,1280).
        sizes: original height and width, top and left of the crop, wanted height and width: (1,6), px.
    """

    tokens: torch.Tensor
    pooled: torch.Tensor
    sizes: torch.Tensor


class SDFace(OneStepStage):
    """Encode, let the UNet return the clean latent, decode. No noise, no schedule, no formula between.

    Both the UNet and the whole autoencoder were tuned by LoRA. Trained on aligned faces of 512 px, which the
    prompt's sizes say; other sizes are worked as they are, padded to whole latent cells.

    Reference:
        NTIRE 2025 real-world face restoration, team 2; GitHub
        zhengchen1999/NTIRE2025_RealWorld_Face_Restoration, `models/team02_SDFace`.
    Parity:
        The official forward pass on the same checkpoint with the posterior's mode, 1e-4 abs in float32.

    Args:
        unet: SDXL-Turbo's `UNet2DConditionModel`, the LoRA merged.
        codec: its autoencoder, the LoRA merged.
        prompt: the constant prompt.
        config: the settings.
        refiner: corrects the UNet's answer; None leaves it.

    Raises:
        ShapeError: if the prompt does not fit the UNet.
    """

    tokens: torch.Tensor
    pooled: torch.Tensor
    sizes: torch.Tensor

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(OneStepConfig):
        """Settings."""

        backbone: ClassVar[str] = "sdxl_unet"

        unet: str | None = "sdxl-turbo/unet"
        """Folder of the UNet in the manifest; None makes a tiny one, for tests."""
        vae: str | None = "sdxl-turbo/vae"
        """Folder of the autoencoder; None makes a tiny one."""
        small_vae: str | None = "taesdxl"
        """Folder of the small autoencoder; None makes one."""
        lora: str | None = "sdface/lora"
        """Checkpoint with the adapters of both, and possibly all other weights; None leaves the base."""
        lora_scale: float = 1.0
        """alpha / rank of the adapters, whose file does not say it: 32 / 32."""
        lora_rank: int = 32
        """Rank of the adapters, on which the scale hangs."""
        prompt: tuple[str, ...] | None = PROMPT
        """Files of one tensor each: prompt_embeds, add_text_embeds and add_time_ids; None makes them."""

        def __post_init__(self) -> None:
            if self.prompt is not None and len(self.prompt) != len(PROMPT):
                raise ConfigError(f"prompt names {len(PROMPT)} files, got {self.prompt}")

        @property
        def noise_timestep(self) -> float:
            """All that the UNet is told of noise."""
            return TIMESTEP

        def made_for(self) -> dict[str, float]:
            """The timestep."""
            return {"timestep": TIMESTEP}

        def files(self) -> tuple[str | None, ...]:
            """UNet, checkpoint, and prompt."""
            return (self.unet, self.lora, *(self.prompt or ()))

        def build(self, store: "WeightStore", target: Target = FP32) -> "SDFace":
            """Load everything, the adapters of both networks merged in float32.

            Raises:
                KeyMismatch: if one key of the checkpoint finds no place: a name that is passed over would
                    leave the base model.
                ShapeError: if the prompt does not fit the UNet.
            """
            for_unet, for_vae = self.own_pieces(store)
            if self.lora is not None:
                of_unet, of_vae = self.read_pieces(store, self.lora, "unet", "vae", rank=self.lora_rank)
                for_unet = [(of_unet, self.lora_scale), *for_unet]
                for_vae = [(of_vae, self.lora_scale), *for_vae]
            codec = self.latent_codec(store, TINY_SDXL_VAE, name="sdface", pieces=for_vae)
            dtype = target.layout(self.backbone).weights
            unet = component(
                store, self.unet, backbones.sd_unet, TINY_SDXL_UNET, dtype=dtype, pieces=for_unet
            )
            prompt = _made_prompt(unet) if self.prompt is None else _read_prompt(store, self.prompt)
            return SDFace(unet, codec, prompt, self, self.load_refiner(store, codec))

        def tiny(self) -> Self:
            """Both networks at their smallest with random weights, and a made prompt."""
            refiner = None if self.refiner is None else MADE
            return replace(
                self,
                unet=None,
                vae=None,
                small_vae=None,
                lora=None,
                prompt=None,
                adapters=(),
                refiner=refiner,
            )

    def __init__(
        self,
        unet: nn.Module,
        codec: LatentCodec,
        prompt: SDXLPrompt,
        config: Config,
        refiner: ResidualRefiner | None = None,
    ) -> None:
        super().__init__(codec, config, refiner)
        self.unet: Any = unet
        for name in ("tokens", "pooled", "sizes"):
            self.register_buffer(name, getattr(prompt, name).float(), persistent=False)
        width, pooled_width = _prompt_widths(unet)
        if self.tokens.ndim != 3 or self.tokens.shape[::2] != (1, width):
            raise ShapeError(f"prompt_embeds (1,L,{width})", self.tokens.shape)
        if self.pooled.shape != (1, pooled_width):
            raise ShapeError(f"add_text_embeds (1,{pooled_width})", self.pooled.shape)
        if self.sizes.shape != (1, 6):
            raise ShapeError("add_time_ids (1,6)", self.sizes.shape)

    def step(self, z: torch.Tensor) -> torch.Tensor:
        """From scaled latents (B,4,h,w) to clean ones, float32."""
        count, dtype = len(z), self.layout.dtype
        pooled, sizes = self.pooled.to(dtype).expand(count, -1), self.sizes.expand(count, -1)
        out = self.unet(
            self.layout.tensor(z),
            torch.tensor(TIMESTEP, device=z.device),
            encoder_hidden_states=self.tokens.to(dtype).expand(count, -1, -1),
            added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes},
            return_dict=False,
        )[0]
        return x0_direct(z, self.refined(z, out.float()))


def _prompt_widths(unet: Any) -> tuple[int, int]:
    """Widths of the tokens and of the pooled prompt that a UNet asks for; six sizes join the latter."""
    config = unet.config
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    return config.cross_attention_dim, pooled


def _made_prompt(unet: Any) -> SDXLPrompt:
    """Random numbers, and the official sizes."""
    width, pooled_width = _prompt_widths(unet)
    draw = generator(0, "sdface prompt")
    return SDXLPrompt(
        tokens=torch.randn(1, _TINY_TOKENS, width, generator=draw),
        pooled=torch.randn(1, pooled_width, generator=draw),
        sizes=torch.tensor([[512.0, 512.0, 0.0, 0.0, 512.0, 512.0]]),
    )


def _read_prompt(store: "WeightStore", names: tuple[str, ...]) -> SDXLPrompt:
    found: list[torch.Tensor] = []
    for name in names:
        tensors = list(store.load(name).values())
        if len(tensors) != 1:
            raise WeightsError(f"{name}: expected a file of one tensor, got {len(tensors)}")
        found += tensors
    tokens, pooled, sizes = found
    return SDXLPrompt(tokens=tokens, pooled=pooled, sizes=sizes)
