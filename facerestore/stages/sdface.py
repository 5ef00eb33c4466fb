"""SDFace: the UNet of SDXL-Turbo, tuned to return the clean latent of a face in one call."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from facerestore.core.errors import ShapeError, WeightsError
from facerestore.core.precision import DtypeName, Layout, choose_layout
from facerestore.core.seeding import generator
from facerestore.core.state import RestorationState
from facerestore.diffusion import backbones
from facerestore.diffusion.codec import LatentCodec, Posterior, through_latents
from facerestore.diffusion.components import component
from facerestore.diffusion.configs import TINY_SDXL_UNET, TINY_SDXL_VAE
from facerestore.diffusion.lora import load_adapter, merge_adapter
from facerestore.diffusion.x0 import x0_direct
from facerestore.stages.base import ImageStage, StageConfig, StageContract

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

TIMESTEP = 999.0  # all that the UNet is told of noise; no schedule enters
PROMPT_KEYS = ("prompt_embeds", "add_text_embeds", "add_time_ids")
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


class SDFace(ImageStage):
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

    Raises:
        ShapeError: if the prompt does not fit the UNet.
    """

    tokens: torch.Tensor
    pooled: torch.Tensor
    sizes: torch.Tensor

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(StageConfig):
        """Settings."""

        unet: str | None = "sdxl-turbo/unet"
        """Folder of the UNet in the manifest; None makes a tiny one, for tests."""
        vae: str | None = "sdxl-turbo/vae"
        """Folder of the autoencoder; None makes a tiny one."""
        lora: str | None = "sdface/lora"
        """Checkpoint with the adapters of both, and possibly all other weights; None leaves the base."""
        lora_scale: float = 1.0
        """alpha / rank of the adapters, whose file does not say it: 32 / 32."""
        prompt: str | None = "sdface/prompt"
        """File with the tensors `prompt_embeds`, `add_text_embeds` and `add_time_ids`; None makes them."""
        posterior: Posterior = "mode"
        """Whether the latent is the mean, or drawn with the seed of the face as the official script does."""

        def contract(self) -> StageContract:
            """A diffusion model: it invents detail."""
            return StageContract(generative=True)

        def weights(self) -> tuple[str, ...]:
            """The base model's two networks and the two files of the team."""
            return tuple(name for name in (self.unet, self.vae, self.lora, self.prompt) if name is not None)

        def build(self, store: "WeightStore") -> "SDFace":
            """Load everything and merge the adapters in float32; `place` chooses the dtype.

            Raises:
                KeyMismatch: if one key of the checkpoint finds no place. The official script would go on
                    with the base model and not say so.
            """
            unet = component(store, self.unet, backbones.sd_unet, TINY_SDXL_UNET, dtype=torch.float32)
            vae = component(store, self.vae, backbones.sd_vae, TINY_SDXL_VAE, dtype=torch.float32)
            if self.lora is not None:
                adapter = load_adapter(store.verify(self.lora))
                merge_adapter(unet, adapter.part("unet"), scale=self.lora_scale)
                merge_adapter(vae, adapter.part("vae"), scale=self.lora_scale)
            prompt = _made_prompt(unet) if self.prompt is None else _read_prompt(store, self.prompt)
            return SDFace(unet, LatentCodec.of(vae, name="sdface"), prompt, self)

        def tiny(self) -> Self:
            """Both networks at their smallest with random weights, and a made prompt."""
            return replace(self, unet=None, vae=None, lora=None, prompt=None)

    def __init__(self, unet: nn.Module, codec: LatentCodec, prompt: SDXLPrompt, config: Config) -> None:
        super().__init__()
        self.config: SDFace.Config = config
        self.unet: Any = unet
        self.codec = codec
        for name in ("tokens", "pooled", "sizes"):
            self.register_buffer(name, getattr(prompt, name).float(), persistent=False)
        self.layout = Layout(dtype=torch.float32, channels_last=False, batch=1)
        width, pooled_width = _prompt_widths(unet)
        if self.tokens.ndim != 3 or self.tokens.shape[::2] != (1, width):
            raise ShapeError(f"prompt_embeds (1,L,{width})", self.tokens.shape)
        if self.pooled.shape != (1, pooled_width):
            raise ShapeError(f"add_text_embeds (1,{pooled_width})", self.pooled.shape)
        if self.sizes.shape != (1, 6):
            raise ShapeError("add_time_ids (1,6)", self.sizes.shape)

    def place(self, device: torch.device, dtype: DtypeName, batch: int | None = None) -> Self:
        """Move both networks to the device in their measured layouts; the autoencoder is never in fp16.

        SDXL's autoencoder overflows there, and the adapters were trained on it, not on its repaired copy.
        """
        self.layout = choose_layout("sdxl_unet", device, dtype)
        if batch is not None:
            self.layout = replace(self.layout, batch=batch)
        self.layout.place(self.unet, device)
        choose_layout("sd_vae", device, "fp32" if dtype == "fp16" else dtype).place(self.codec, device)
        for name in ("tokens", "pooled", "sizes"):
            setattr(self, name, getattr(self, name).to(device))
        return self

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
        return x0_direct(z, out)

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


def _read_prompt(store: "WeightStore", name: str) -> SDXLPrompt:
    state = store.load(name)
    if set(state) != set(PROMPT_KEYS):
        raise WeightsError(
            f"{name}: expected the tensors {', '.join(PROMPT_KEYS)}, got {', '.join(sorted(state)) or 'none'}"
        )
    tokens, pooled, sizes = (state[key] for key in PROMPT_KEYS)
    return SDXLPrompt(tokens=tokens, pooled=pooled, sizes=sizes)
