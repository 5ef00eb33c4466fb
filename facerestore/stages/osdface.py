"""OSDFace: a diffusion UNet asked once, prompted by the codes that the degraded face itself shows."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import nn

from facerestore.core.errors import ConfigError
from facerestore.core.precision import FP32, Layout, Target
from facerestore.core.state import RestorationState
from facerestore.diffusion import backbones
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.components import component
from facerestore.diffusion.configs import TINY_SD_VAE, TINY_UNET
from facerestore.diffusion.schedule import sd_alpha_bar
from facerestore.diffusion.x0 import x0_from_eps
from facerestore.imaging.range import to_signed
from facerestore.imaging.resize import resize
from facerestore.nets.residual_refiner import ResidualRefiner
from facerestore.nets.visual_prompt import PromptProjector, VisualPrompt, published_state
from facerestore.stages.one_step import MADE, OneStep, OneStepConfig, OneStepStage
from facerestore.weights.convert import read_part
from facerestore.weights.load import load_into
from facerestore.weights.seeded import fill_seeded

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

_TINY_PROJECTOR = PromptProjector.Config(
    inputs=VisualPrompt.Config.tiny().code_dim, outputs=TINY_UNET["cross_attention_dim"]
)


class OSDFace(OneStepStage):
    """Encode the face without adding noise, take out what the UNet calls noise at one timestep, decode.

    With z the latent and c the prompt that `VisualPrompt` and `PromptProjector` make of the same face,
    `z_0 = (z - sqrt(1 - a) * eps(z, t, c)) / sqrt(a)`, a the cumulative signal variance of timestep t.

    Square faces are worked at 512 px whatever their size; others keep theirs, padded to whole latent cells.

    Reference:
        Wang et al., 2025, arXiv:2411.17163; GitHub jkwang28/OSDFace `infer.py`.
    Parity:
        The official forward pass on the same weights with the posterior's mode, 1e-4 abs in float32.

    Args:
        unet: Stable Diffusion 2.1-base's `UNet2DConditionModel`, the LoRA merged.
        codec: its autoencoder.
        prompt: encoder of degraded faces and their codebook.
        projector: from codes to the UNet's cross-attention.
        config: the settings.
        refiner: corrects the UNet's answer; None leaves it.

    Raises:
        ConfigError: if the networks do not fit each other.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(OneStepConfig):
        """Settings; the defaults are what was trained and published.

        Raises:
            ConfigError: if the timestep or the size is out of range.
        """

        backbone: ClassVar[str] = "sd21_unet"

        timestep: int = 399
        """Of 1000: how much of the latent is taken for noise."""
        vre_double_norm: bool = True
        """Whether the prompt's encoder sees [-3,1] as the official inference feeds it, or [-1,1]."""
        square_px: int = 512
        """Side at which square faces are worked, a multiple of 8."""
        prompt_net: VisualPrompt.Config = VisualPrompt.Config()
        """Size of the prompt's encoder."""
        projector_net: PromptProjector.Config = PromptProjector.Config()
        """Size of the projector; its outputs are the width of the UNet's cross-attention."""
        unet: str | None = "sd21-base/unet"
        """Folder of the UNet in the manifest; None makes a tiny one, for tests."""
        vae: str | None = "sd21-base/vae"
        """Folder of the autoencoder; None makes a tiny one."""
        visual_prompt: str | None = "osdface/visual-prompt"
        """File of the prompt's encoder: the published checkpoint, or its part; None makes random weights."""
        projector: str | None = "osdface/projector"
        """File of the projector; None makes random weights."""
        lora: str | None = "osdface/lora"
        """Adapter of the UNet; None leaves the UNet as it is."""
        lora_scale: float = 1.0
        """alpha / rank of the adapter, whose file does not say it: 16 / 16."""
        lora_rank: int = 16
        """Rank of the adapter, on which the scale hangs."""

        def __post_init__(self) -> None:
            if not 0 <= self.timestep <= 999:
                raise ConfigError(f"timestep lies in 0 to 999, got {self.timestep}")
            if self.square_px < 8 or self.square_px % 8:
                raise ConfigError(f"square_px must be a multiple of 8, got {self.square_px}")

        @property
        def noise_timestep(self) -> float:
            """The timestep."""
            return self.timestep

        def made_for(self) -> dict[str, float]:
            """The timestep."""
            return {"timestep": self.timestep}

        def files(self) -> tuple[str | None, ...]:
            """The UNet and the three published files."""
            return (self.unet, self.visual_prompt, self.projector, self.lora)

        def build(self, store: "WeightStore", target: Target = FP32) -> "OSDFace":
            """Load everything, the adapter merged in float32.

            Raises:
                ConfigError: if the networks do not fit each other, or the adapter says another timestep, or
                    the prompt's file that it was trained on another range or size.
                KeyMismatch: if a file does not fit its network, or the adapter the UNet.
                WeightsNotFound: names every file that is missing.
            """
            store.require(self.weights())
            for_unet, for_vae = self.own_pieces(store)
            if self.lora is not None:
                (adapter,) = self.read_pieces(store, self.lora, "unet", rank=self.lora_rank)
                for_unet = [(adapter, self.lora_scale), *for_unet]
            codec = self.latent_codec(store, TINY_SD_VAE, name="osdface", pieces=for_vae)
            prompt, projector = VisualPrompt(self.prompt_net), PromptProjector(self.projector_net)
            if self.visual_prompt is None:
                fill_seeded(prompt)
            else:
                self._load_prompt(store, self.visual_prompt, prompt)
            if self.projector is None:
                fill_seeded(projector)
            else:
                load_into(projector, store.load(self.projector), self.projector)
            dtype = target.layout(self.backbone).weights
            unet = component(store, self.unet, backbones.sd_unet, TINY_UNET, dtype=dtype, pieces=for_unet)
            return OSDFace(unet, codec, prompt, projector, self, self.load_refiner(store, codec))

        def _load_prompt(self, store: "WeightStore", name: str, prompt: VisualPrompt) -> None:
            """Load it where what its file says of its input, if anything, is what it is to be given."""
            file = read_part(store.readable(name), store.spec(name).take)
            given = {"vre_double_norm": self.vre_double_norm, "image_px": self.prompt_net.image_px}
            for fact, value in given.items():
                said, ours = file.metadata.get(fact), json.dumps(value)
                if said is not None and said != ours:
                    raise ConfigError(
                        f"{name} ({store.find(name)}) was trained with {fact}={said}, and is to be used with "
                        f"{fact}={ours}; set it to {said}"
                    )
            load_into(prompt, published_state(file.tensors), name)

        def tiny(self) -> Self:
            """Every network at its smallest with random weights, square faces at 64 px."""
            return replace(
                self,
                square_px=64,
                prompt_net=VisualPrompt.Config.tiny(),
                projector_net=_TINY_PROJECTOR,
                unet=None,
                vae=None,
                small_vae=None,
                visual_prompt=None,
                projector=None,
                lora=None,
                adapters=(),
                refiner=None if self.refiner is None else MADE,
            )

    def __init__(
        self,
        unet: nn.Module,
        codec: LatentCodec,
        prompt: VisualPrompt,
        projector: PromptProjector,
        config: Config,
        refiner: ResidualRefiner | None = None,
    ) -> None:
        super().__init__(codec, config, refiner)
        self.config: OSDFace.Config = config
        self.unet: Any = unet
        self.prompt = prompt
        self.projector = projector
        self.alpha_bar = float(sd_alpha_bar()[config.timestep])
        self._require_fit()

    def networks(self, target: Target, batch: int | None) -> Iterator[tuple[nn.Module, Layout]]:
        """The prompt's encoder has a layout of its own, and codes are always compared in float32."""
        for net, layout in super().networks(target, batch):
            if net is not self.prompt:
                yield net, layout
        yield self.prompt.encoder, target.layout("visual_prompt")
        for net in (self.prompt.quant_conv, self.prompt.quantize):
            yield net, Layout(dtype=torch.float32, channels_last=False, batch=1)

    def enter(self, image: torch.Tensor) -> torch.Tensor:
        """Bring square images (B,3,H,H) to the side at which they are worked, as the official script does."""
        side = self.config.square_px
        if image.shape[2] != image.shape[3] or image.shape[2] == side:
            return image
        return F.interpolate(image, (side, side), mode="bilinear", align_corners=True)

    def embed(self, image: torch.Tensor) -> torch.Tensor:
        """The prompt (B,77,width) float32 that images (B,3,H,W) in [0,1] give."""
        side = self.prompt.config.image_px
        signed = F.interpolate(to_signed(image), (side, side), mode="bilinear", align_corners=False)
        if self.config.vre_double_norm:
            signed = to_signed(signed)
        return self.projector(self.prompt(signed)).float()

    def step(self, z: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """From scaled latents (B,4,h,w) to clean ones, float32, for a prompt (B,77,width)."""
        steps = torch.full((len(z),), self.config.timestep, device=z.device)
        prompt = prompt.to(self.layout.dtype)
        noise = self.unet(self.layout.tensor(z), steps, encoder_hidden_states=prompt, return_dict=False)[0]
        return x0_from_eps(z, self.refined(z, noise), self.alpha_bar)

    def one_step(
        self, image: torch.Tensor, seeds: tuple[int, ...], moments: torch.Tensor | None = None
    ) -> OneStep:
        """Restore pictures (B,3,H,W) in [0,1] at their own size, with one seed each."""
        with self.using(self.prompt, self.projector):
            prompt = self.embed(image)
        return self.through_latents(image, seeds, lambda z: self.step(z, prompt), moments)

    def restore(self, image: torch.Tensor, state: RestorationState) -> torch.Tensor:
        """(B,3,H,W) float32 in [0,1] of any size to the same form."""
        restored = super().restore(self.enter(image), state)
        return resize(restored, image.shape[2], image.shape[3])

    def _require_fit(self) -> None:
        unet, sizes = self.unet.config, self.projector.config
        if sizes.inputs != self.prompt.config.code_dim:
            raise ConfigError(
                f"the projector takes {sizes.inputs} channels, the codes have {self.prompt.config.code_dim}"
            )
        if unet.cross_attention_dim != sizes.outputs:
            raise ConfigError(
                f"the prompt is {sizes.outputs} wide, but the UNet's cross-attention "
                f"{unet.cross_attention_dim}: it is another base model. Give the one that the adapter was "
                "trained on, Stable Diffusion 2.1-base"
            )
        latent = self.codec.vae.config.latent_channels
        if unet.in_channels != latent:
            raise ConfigError(
                f"the autoencoder's latents have {latent} channels, the UNet takes {unet.in_channels}; "
                "give the two of one base model"
            )
