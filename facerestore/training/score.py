"""Who teaches by what it would denoise: a frozen diffusion model, and its part in the players' losses."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from torch import Tensor, nn

from facerestore.core.config import Config as BaseConfig
from facerestore.core.errors import ConfigError
from facerestore.core.precision import FP32, Layout, Target
from facerestore.diffusion.attached import attach, disabled
from facerestore.diffusion.backbones import sd_unet
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.components import component
from facerestore.diffusion.configs import SD_VAE, TINY_UNET
from facerestore.diffusion.constant_prompt import constant_prompt
from facerestore.losses.score import (
    CSD_TIMESTEPS,
    FAKE_SCORE_TIMESTEPS,
    VSD_TIMESTEPS,
    csd_loss,
    fake_score_loss,
    ta_vsd_loss,
    vsd_loss,
)
from facerestore.training.draws import integers, noise_like
from facerestore.training.task import Batch

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

Kind = Literal["vsd", "ta_vsd", "csd"]
SCORE = "score"
"""The player: the second network beside the teacher."""
UNET_LAYERS = r"conv\w*|to_[qkv]|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2"
"""The last parts of the names of layers that OSEDiff and TADSR adapt in Stable Diffusion's UNet: all but
those of the timestep."""
_BACKBONE = "sd21_unet"
_TOKENS = 77


class Score(nn.Module):
    """Stable Diffusion 2.1's UNet, frozen, is the teacher; with its adapter "fake" it is the second network.

    So one UNet lies in memory in place of two. The adapter learns to denoise what the generator predicts;
    without it the teacher answers as it was published, bit for bit. CSD has no second network.

    Reference:
        OSEDiff (`vsd`), TADSR (`ta_vsd`), PiSA-SR (`csd`): see `facerestore.losses.score`. Deviation: one
        constant prompt, where their scripts let a tagger describe each picture; the negative one is theirs.

    Args:
        unet: placed, with the adapter where there is one.
        told: (L,width) the prompt of the teacher and of the second network.
        untold: (L,width) the negative prompt of the teacher.
        config: the settings.
        layout: of the UNet.
    """

    told: Tensor
    untold: Tensor

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(BaseConfig):
        """Settings; the defaults are those of OSEDiff's script.

        Raises:
            ConfigError: if a number is out of range.
        """

        kind: Kind = "vsd"
        """`ta_vsd` asks the teacher at half the student's timestep; `csd` trains no second network."""
        weight: float = 1.0
        """Of the generator's part."""
        unet: str | None = "sd21-base/unet"
        """Folder of the UNet in the manifest; None makes a tiny one, for tests."""
        prompt: str | None = "sd21-base/prompt-face"
        """File with the embedding of what is wanted; None makes one."""
        negative: str | None = "sd21-base/prompt-negative"
        """File with that of what is not; None makes one."""
        rank: int = 4
        """Of the second network's adapter."""
        alpha: float = 8.0
        """The scale times the rank."""
        seed: int = 0
        """Of the adapter."""

        def __post_init__(self) -> None:
            if self.weight < 0 or self.rank < 1 or self.alpha <= 0:
                raise ConfigError(f"Score: weight lies not below 0, rank and alpha above, got {self}")

        @property
        def reads(self) -> frozenset[str]:
            """Fields that it needs; every one-step stage makes them."""
            return frozenset({"z_0", "timesteps"})

        def notes(self) -> tuple[str, ...]:
            """What every kind of it does otherwise."""
            return ("score: one constant prompt, where the published scripts describe each picture",)

        def weights(self) -> tuple[str, ...]:
            """Names of the weights it needs."""
            return tuple(name for name in (self.unet, self.prompt, self.negative) if name is not None)

        def tiny(self) -> Self:
            """The same on a small made network, with made prompts."""
            scale = self.alpha / self.rank
            return replace(self, unet=None, prompt=None, negative=None, rank=2, alpha=2 * scale)

        def build(self, store: "WeightStore", target: Target = FP32) -> "Score":
            """Load the UNet in the target's dtype, place it, and attach a fresh adapter."""
            layout = target.layout(_BACKBONE)
            unet = component(store, self.unet, sd_unet, TINY_UNET, dtype=layout.weights)
            layout.place(unet, target.device)
            width = unet.config.cross_attention_dim
            told = constant_prompt(store, self.prompt, tokens=_TOKENS, width=width)
            untold = constant_prompt(store, self.negative, tokens=_TOKENS, width=width)
            if self.negative is None:
                untold = untold.flip(0)  # a made prompt is always the same one
            if self.kind != "csd":
                attach(
                    unet,
                    rank=self.rank,
                    alpha=self.alpha,
                    targets=rf"(.*\.)?({UNET_LAYERS})",
                    name="fake",
                    seed=self.seed,
                )
            return Score(unet, told, untold, self, layout).to(target.device)

    def __init__(self, unet: nn.Module, told: Tensor, untold: Tensor, config: Config, layout: Layout) -> None:
        super().__init__()
        self.unet: Any = unet
        self.config = config
        self.layout = layout
        self.register_buffer("told", told, persistent=False)
        self.register_buffer("untold", untold, persistent=False)

    @property
    def player(self) -> str | None:
        """It is one where it has a second network."""
        return None if self.config.kind == "csd" else SCORE

    def say(self, fields: dict[str, Any], batch: Batch) -> Iterator[tuple[str, float, Tensor]]:
        """Its part in the generator's loss."""
        yield "score", self.config.weight, self.generator(fields, batch)

    def own(self, batch: Batch) -> tuple[str, Tensor]:
        """What the second network minimises."""
        return "denoising", self.second(batch)

    def require_latents_of(self, codec: LatentCodec) -> None:
        """Check that it knows the latents of an autoencoder.

        Raises:
            ConfigError: if they are not Stable Diffusion 2.1's.
        """
        if codec.form != (4, 8) or abs(codec.scaling - SD_VAE["scaling_factor"]) > 1e-6 or codec.shift:
            raise ConfigError(
                f"the teacher of score distillation knows latents of Stable Diffusion 2.1 (4 channels, 8 px, "
                f"scaling {SD_VAE['scaling_factor']:g}), and the stage has {codec.form[0]} channels, "
                f"{codec.form[1]} px, scaling {codec.scaling:g}; leave score out, or train a stage on SD 2.1"
            )

    def generator(self, fields: dict[str, Any], batch: Batch) -> Tensor:
        """How far teacher and second network disagree about predictions: (B,), see `distillation_loss`.

        Args:
            fields: of which `z_0` (B,4,h,w) is read, and by `ta_vsd` the student's `timesteps` (B,).
            batch: whose seeds draw noise and timesteps.
        """
        z = fields["z_0"]
        noise = noise_like(z, batch.seeds, "score/noise")
        if self.config.kind == "ta_vsd":
            return ta_vsd_loss(z, noise, fields["timesteps"], teacher=self._teacher, fake=self._fake)
        if self.config.kind == "vsd":
            levels = integers(*VSD_TIMESTEPS, batch.seeds, "score/timesteps", z.device)
            return vsd_loss(z, noise, levels, teacher=self._teacher, fake=self._fake)
        levels = integers(*CSD_TIMESTEPS, batch.seeds, "score/timesteps", z.device)
        return csd_loss(z, noise, levels, teacher=self._teacher)

    def second(self, batch: Batch) -> Tensor:
        """How badly the second network denoises what the generator predicted, `batch.made["z_0"]`: (B,)."""
        z = batch.made["z_0"]
        levels = integers(*FAKE_SCORE_TIMESTEPS, batch.seeds, "score/second timesteps", z.device)
        noise = noise_like(z, batch.seeds, "score/second noise")
        return fake_score_loss(z, noise, levels, fake=self._fake)

    def _teacher(self, z_t: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
        with disabled(self.unet):
            return self._ask(z_t, levels, self.told), self._ask(z_t, levels, self.untold)

    def _fake(self, z_t: Tensor, levels: Tensor) -> Tensor:
        return self._ask(z_t, levels, self.told)

    def _ask(self, z_t: Tensor, levels: Tensor, prompt: Tensor) -> Tensor:
        words = prompt.to(self.layout.dtype).expand(len(z_t), -1, -1)
        said = self.unet(self.layout.tensor(z_t), levels, encoder_hidden_states=words, return_dict=False)
        return said[0].float()
