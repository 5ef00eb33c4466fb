"""Train TADSR, and BVI's refiner behind it: a student asked at any timestep, a teacher at half of it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from facerestore.core.errors import ConfigError, KeyMismatch
from facerestore.core.precision import FP32, Layout, Target
from facerestore.core.seeding import seeded_layers
from facerestore.diffusion.attached import adapter_of
from facerestore.diffusion.backbones import sd_vae, time_vae
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.components import component
from facerestore.diffusion.configs import TINY_SD_VAE
from facerestore.diffusion.noising import alpha_bar_at
from facerestore.diffusion.time_vae import add_new_time, encode_at
from facerestore.diffusion.x0 import x0_from_scaled_residual
from facerestore.imaging.pad import cut, pad_to_multiple
from facerestore.imaging.range import to_signed
from facerestore.nets.residual_refiner import ResidualRefiner
from facerestore.stages.one_step import OneStep
from facerestore.stages.tadsr import REFINER, TADSR
from facerestore.training.draws import integers
from facerestore.training.one_step import OneStepTask, base_of
from facerestore.training.optimizer import Optimizer
from facerestore.training.score import UNET_LAYERS, Score
from facerestore.training.stage_task import LoRA
from facerestore.training.task import Batch
from facerestore.training.terms import Loss
from facerestore.weights.convert import read_checkpoint
from facerestore.weights.folders import STEMS
from facerestore.weights.write import write_file, write_tensors

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

TIMESTEPS = tuple(int(1 + 998 * i / 49) for i in range(50))
"""Of the student, from 1 to 999 at nearly equal distances; each face gets one of them."""
_RANK, _ALPHA = 4, 8.0
ADAPTERS = tuple(
    LoRA(net=net, rank=_RANK, alpha=_ALPHA, targets=(f"re:{layers}",), name=name)
    for net, name, layers in (
        ("unet", "default_encoder", rf"conv_in|down_blocks\.(.*\.)?({UNET_LAYERS})"),
        ("unet", "default_decoder", rf"conv_out|up_blocks\.(.*\.)?({UNET_LAYERS})"),
        ("unet", "default_others", rf"mid_block\.(.*\.)?({UNET_LAYERS})"),
        ("codec.vae", "default_encoder", r"quant_conv|encoder\.(.*\.)?(conv\w*|to_[qkv]|to_out\.0)"),
    )
)
"""On the UNet by position, and on the autoencoder's encoder, as `tadsr.pkl` has them."""
WHOLE = ("unet.conv_in", r"re:codec\.vae\.encoder\..*time_emb(edding|_proj)")
"""What is trained in full: the UNet's first convolution, and all time layers."""
LOSSES = (
    Loss(name="blurred_mse", weight=4.0),  # 1 on pictures in [-1,1], as in the script
    Loss(name="lpips", weight=2.0),
)
"""TADSR's, beside its teacher."""
BVI_LOSSES = (
    *LOSSES,
    Loss(name="high_frequency", weight=0.5),
    Loss(name="gradient", weight=0.5),
    Loss(name="ratio_cap", weight=1.0),
)
"""BVI names the last three and no weight: these are ours."""
_OPTIMIZER = Optimizer(learning_rate=5e-5, weight_decay=1e-2)
_ALPHA_ENDING = ".alpha"


class OpenTADSR(TADSR):
    """TADSR before a timestep is folded into it: each picture may be asked about at one of its own.

    Its autoencoder has its time layers, and stays in float32, because it is exported whole.
    """

    def networks(self, target: Target, batch: int | None) -> Iterator[tuple[nn.Module, Layout]]:
        """As every stage on Stable Diffusion, the autoencoder in float32."""
        for net, layout in TADSR.networks(self, target, batch):
            yield net, Target(device=target.device).layout("sd_vae", batch) if net is self.codec else layout

    def at(self, image: Tensor, seeds: tuple[int, ...], timesteps: Tensor) -> dict[str, Tensor]:
        """Restore pictures (B,3,H,W) in [0,1], each at its timestep (B,), with one seed each.

        Returns:
            `image` (B,3,H,W), not clamped; `z_lq`, `z_0` and `predicted` (B,4,h,w), the last what the UNet
            said; where there is a refiner, its `correction` of that; and the `timesteps`.
        """
        padded = pad_to_multiple(image, self.multiple_px)
        moments = encode_at(self.codec.vae, to_signed(padded).to(self.codec.dtype), timesteps)
        z_lq = self.codec.from_moments(moments, seeds, self.config.posterior)
        made = {"timesteps": timesteps, "z_lq": z_lq, "predicted": self.ask(self.unet, z_lq, timesteps)}
        answer = made["predicted"]
        if self.refiner is not None:
            z, said = self.layout.tensor(z_lq), self.layout.tensor(answer)
            made["correction"] = self.refiner(z, said, timesteps).float()
            answer = answer + made["correction"]
        alpha_bar = alpha_bar_at(timesteps).view(-1, 1, 1, 1)
        made["z_0"] = x0_from_scaled_residual(z_lq, answer, alpha_bar)
        return made | {"image": cut(self.codec.decode(made["z_0"]), *image.shape[2:])}

    def one_step(self, image: Tensor, seeds: tuple[int, ...], moments: Tensor | None = None) -> OneStep:
        """As `at`, all at the timestep of the settings; it always encodes anew."""
        del moments
        made = self.at(image, seeds, torch.full((len(image),), self.config.timestep, device=image.device))
        return OneStep(made["image"], made["z_lq"], made["z_0"])


class TADSRTask(OneStepTask):
    """A one-step restorer that is trained at every timestep at once, so that users may choose.

    The later the timestep of a face, the blurrier its comparison with the sharp one, and the later and the
    stronger the teacher: low ones keep, high ones invent. With `refined` BVI's residual refiner is trained
    behind the UNet, and what it corrected goes to the teacher.

    Fields that losses read beside those of `OneStepTask`, which has no `z_hq` here: `predicted`, and with a
    refiner `correction`.

    Reference:
        TADSR: `train_tadsr.py` of github zty557/TADSR: adapters, timesteps, losses, weights, optimiser.
        Deviations: one constant prompt in place of a tagger's; losses see pictures before they are clamped;
        `new_time_layers`. BVI describes its training in words; see the losses.

    The arguments are those of `OneStepTask`, the stage an `OpenTADSR`.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Config(OneStepTask.Config):
        """Settings; the defaults train TADSR on Stable Diffusion 2.1, without a file of TADSR's authors.

        To go on with their files, give the stage their `vae` and `adapter`, and say that the time layers are
        not new.
        """

        stage: TADSR.Config = TADSR.Config(vae="sd21-base/vae", adapter=None, posterior="sample")
        """Who is trained; its `timestep` is that of the validation."""
        new_time_layers: bool = True
        """Whether the autoencoder is a plain one, which gets time layers that change nothing at first; else
        it has some, as `tadsr/time-vae`."""
        refined: bool = False
        """Whether a refiner is trained with it: the stage's, or a new one."""
        adapters: tuple[LoRA, ...] = ADAPTERS
        """On its networks; `TADSR` loads no others than these four names."""
        whole: tuple[str, ...] = WHOLE
        """What is trained in full, beside the refiner."""
        losses: tuple[Loss, ...] = LOSSES
        """On the picture and the latents."""
        score: Score.Config | None = Score.Config(kind="ta_vsd")
        """Who teaches by what it would denoise."""
        generator: Optimizer = _OPTIMIZER
        """Of the stage."""
        second: Optimizer = _OPTIMIZER
        """Of the second network beside the teacher."""

        def build_stage(self, store: "WeightStore", target: Target) -> OpenTADSR:
            """The stage before training; its adapter, where it has one, comes later."""
            stage = self.stage
            if stage.codec != "full" or stage.adapters:
                raise ConfigError(
                    f"TADSR trains its own encoder: codec is full and adapters are none, got {stage.codec} "
                    f"and {stage.adapters}"
                )
            make = sd_vae if self.new_time_layers else time_vae
            vae = component(store, stage.vae, make, TINY_SD_VAE, dtype=torch.float32)
            if self.new_time_layers:
                add_new_time(vae, self.seed)
            codec = LatentCodec.of(vae, name="tadsr")
            refiner = stage.load_refiner(store, codec)
            if self.refined and refiner is None:
                with seeded_layers(self.seed, REFINER):
                    refiner = ResidualRefiner(ResidualRefiner.Config(channels=codec.form[0]))
            unet = stage.load_unet(store, target)
            return OpenTADSR(unet, codec, stage.load_prompt(store, unet), stage, refiner)

        def build(self, store: "WeightStore", target: Target = FP32) -> "TADSRTask":
            """Load everything, place it, attach fresh adapters, or those of the stage's file.

            Raises:
                ConfigError: if there is nothing to train, or it is not there, or a loss reads latents of the
                    sharp face, which an encoder that is trained in full no longer makes.
                KeyMismatch: if the stage's file has other adapters than these.
                WeightsError: if a weight is missing, damaged, or does not fit.
            """
            if "z_hq" in self.reads():
                raise ConfigError("TADSR trains its encoder: no loss and no adversary may read z_hq")
            task = TADSRTask(**self.parts(store, target))
            if self.refined:
                task.stage.get_submodule("refiner").float().requires_grad_(True)
            if self.stage.adapter is not None:
                task.begin_with(
                    read_checkpoint(store.readable(self.stage.adapter)).tensors, self.stage.adapter
                )
            return task

    def made_of(self, coarse: Tensor, batch: Batch) -> dict[str, Any]:
        """What the stage makes of its input (B,3,H,W), each face at a timestep drawn by its seed."""
        chosen = integers(0, len(TIMESTEPS), batch.seeds, "tadsr/timesteps", coarse.device)
        stage: Any = self.stage
        return stage.at(coarse, batch.seeds, torch.tensor(TIMESTEPS, device=coarse.device)[chosen])

    def trained(self) -> dict[str, Tensor]:
        """Every tensor that is trained, called as in `tadsr.pkl`, the refiner's as in BVI's checkpoint."""
        stage = self.stage
        parts = (("unet", stage.unet), ("vae", stage.codec.vae), (REFINER, stage.refiner))
        return {
            f"{part}.{name}": value
            for part, net in parts
            if isinstance(net, nn.Module)
            for name, value in net.named_parameters()
            if value.requires_grad
        }

    @torch.no_grad()
    def begin_with(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Begin with what was trained before; a file without a refiner leaves it new.

        Args:
            tensors: as `trained` calls them.
            source: where they come from, for messages.

        Raises:
            KeyMismatch: if they are others; then nothing was changed.
        """
        own = self.trained()
        found = {key: value for key, value in tensors.items() if not key.endswith(_ALPHA_ENDING)}
        if not any(key.startswith(REFINER) for key in found):
            own = {key: value for key, value in own.items() if not key.startswith(REFINER)}
        misshapen = [
            f"{key}: expected {tuple(value.shape)}, got {tuple(found[key].shape)}"
            for key, value in own.items()
            if key in found and found[key].shape != value.shape
        ]
        if own.keys() != found.keys() or misshapen:
            raise KeyMismatch(source, sorted(own.keys() - found), sorted(found.keys() - own), misshapen)
        for key, value in own.items():
            value.copy_(found[key])

    def export(self, folder: Path, metadata: Mapping[str, str]) -> tuple[Path, ...]:
        """Write `tadsr/weights.safetensors`, and beside it `time-vae/` where the time layers were new.

        That is how a weights folder has them: set `FACERESTORE_WEIGHTS` to `folder`, or give
        `weights={"tadsr": folder / "tadsr"}`. The file has the keys of `tadsr.pkl` and of BVI's checkpoint,
        and the scale of each adapter; it is valid at every timestep, and says none.
        """
        facts = {"base": base_of(self.config.stage), **metadata}
        stage: Any = self.stage
        config: Any = self.config
        tensors = self.trained()
        for part, net in (("unet", stage.unet), ("vae", stage.codec.vae)):
            for update in adapter_of(net).updates:
                tensors[f"{part}.{update.module}{_ALPHA_ENDING}"] = torch.tensor(update.alpha)
        files = [folder / "tadsr" / "weights.safetensors"]
        write_tensors(files[0], tensors, facts)
        if config.new_time_layers:
            files += _write_time_vae(stage.codec.vae, folder / "tadsr" / "time-vae", facts)
        return tuple(files)


def _write_time_vae(vae: Any, folder: Path, facts: Mapping[str, str]) -> list[Path]:
    """Write an autoencoder without its adapter, in the form in which TADSR's was published."""
    state = {
        key.replace(".base_layer.", "."): value
        for key, value in vae.state_dict().items()
        if ".lora_" not in key
    }
    own = {key: value for key, value in dict(vae.config).items() if not key.startswith("_")}
    config = own | {"_class_name": "TimeAwareAutoencoderKL", "time_scale_shift": "scale_shift"}
    files = [folder / f"{STEMS['diffusers']}.safetensors", folder / "config.json"]
    write_tensors(files[0], state, facts)
    write_file(files[1], json.dumps(config, indent=2, sort_keys=True).encode())
    return files
