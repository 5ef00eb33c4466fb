"""The trainings by name: each a function that returns a `Job`, with the settings that its authors state.

What was never published stands here as our reading, and the docstring says so. Everything can be changed:
`dataclasses.replace(job, ...)`, `job.override("task.generator.learning_rate", "5e-5")`, or `--set` on the
command line.
"""

import difflib
import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec

from facerestore.core.errors import ConfigError
from facerestore.stages.face_unet import FaceUNet
from facerestore.stages.omgsr_s import OMGSRS
from facerestore.stages.osdface import OSDFace
from facerestore.stages.sdface import SDFace
from facerestore.stages.zimage import ZImage
from facerestore.training.adversary import Adversary
from facerestore.training.job import Job
from facerestore.training.one_step import OneStepTask
from facerestore.training.optimizer import Optimizer
from facerestore.training.restorer import RestorerTask
from facerestore.training.stage_task import LoRA
from facerestore.training.stream import Stream
from facerestore.training.tadsr import BVI_LOSSES, TADSRTask
from facerestore.training.terms import Loss
from facerestore.training.visual_prompt import VisualPromptTask

P = ParamSpec("P")
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_CONVOLUTIONS = ("conv1", "conv2", "conv_in", "conv_shortcut", "conv", "conv_out")
_UNET = (*_ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut")
_ZIMAGE = (
    r"re:(layers|noise_refiner)\.\d+\.(attention\.(to_q|to_k|to_v|to_out\.0)|feed_forward\.w[123])"
    r"|all_x_embedder\.2-1",
)
"""Not the context refiner, whose prompt is constant, and not what embeds timestep and prompt."""


def _noted(function: Callable[P, Job]) -> Callable[P, Job]:
    """Let what the docstring of a job says, after its first line, stand in its cards too."""
    said = inspect.cleandoc(function.__doc__ or "").partition("\n")[2].strip()

    @functools.wraps(function)
    def job(*args: P.args, **kwargs: P.kwargs) -> Job:
        return replace(function(*args, **kwargs), notes=said)

    return job


@_noted
def osdface_prompt(faces: str = "", output_dir: str = "runs/osdface-prompt") -> Job:
    """OSDFace's visual prompt, before everything else: the encoder of degraded faces and its codebook.

    Published are the kinds of losses and the layout of the checkpoint, which is DAEFR's. So degradation,
    weights, learning rate (4.5e-6 times the faces of a step) and optimiser are DAEFR's, from its
    configuration; its codes are others in number and width. How long each part takes was not published, and
    is ours. Where a step is to have other than 16 faces, the rates of both players should follow.

    What is exported goes into the job `osdface` with `--weights vre=FILE` and
    `--set task.stage.vre_double_norm=false`: this encoder saw faces normalised once.

    Reference:
        Wang et al., 2025, arXiv:2411.17163, section 3.2; GitHub LIAGM/DAEFR `configs/`.
    """
    return Job(
        name="osdface-prompt",
        task=VisualPromptTask.Config(associates_at=200_000),
        data=Stream.Config(faces=faces, presets=("restoreformer",)),
        output_dir=output_dir,
        max_steps=300_000,
        batch_size=2,
        accumulation=8,
        ema_decay=None,
        save_every=5_000,
        validate_every=5_000,
    )


@_noted
def osdface(faces: str = "", output_dir: str = "runs/osdface") -> Job:
    """OSDFace's UNet adapter and projector, on a visual prompt that was trained before.

    Published are the losses, the rank and the timestep. The weights of the losses are those that public
    retrainings use (identity 0.1, adversary 0.01), learning rate and batch are quoted and unconfirmed, the
    adversary's UNet is ours to choose: Stable Diffusion 2.1's own, where OSDFace's figure shows SDXL's.

    Reference:
        Wang et al., 2025, arXiv:2411.17163, section 3.3.
    """
    task = OneStepTask.Config(
        stage=OSDFace.Config(lora=None, projector=None),
        adapters=(LoRA(net="unet", rank=16, alpha=16, targets=_UNET),),
        whole=("projector",),
        losses=(Loss(name="mse"), Loss(name="edge_dists"), Loss(name="arcface", weight=0.1)),
        adversary=Adversary.Config(net="latent", kind="non_saturating", weight=0.01),
        generator=Optimizer(learning_rate=1e-4, weight_decay=1e-2),
        discriminator=Optimizer(learning_rate=1e-4, weight_decay=1e-2),
    )
    return Job(
        name="osdface",
        task=task,
        data=Stream.Config(faces=faces, presets=("codeformer_small",)),
        output_dir=output_dir,
        max_steps=150_000,
        checkpointing=True,
    )


@_noted
def mipluscv_detail(faces: str = "", output_dir: str = "runs/mipluscv-detail") -> Job:
    """MiPlusCV's second stage: an adapter of Z-Image on what OSDFace restored.

    Published are the losses, the optimiser's betas and the base; the exponent of the learning rate is not
    legible (1e-4 here), rank, noise level and the weights of the losses are our reading. The supervised part;
    the rewards that follow it are another job.

    Reference:
        NTIRE 2026 Challenge on Real-World Face Restoration, arXiv:2604.10532, section 4.1.
    """
    task = OneStepTask.Config(
        stage=ZImage.Config(fold=False),
        before=OSDFace.Config(),
        adapters=(LoRA(net="transformer", rank=64, alpha=64, targets=_ZIMAGE),),
        losses=(Loss(name="l1"), Loss(name="edge_dists"), Loss(name="arcface", weight=0.1)),
        adversary=Adversary.Config(net="dinov2", kind="hinge", weight=0.1),
        generator=Optimizer(learning_rate=1e-4, betas=(0.5, 0.999), weight_decay=1e-2),
        discriminator=Optimizer(learning_rate=1e-4, betas=(0.5, 0.999), weight_decay=1e-2),
    )
    return Job(
        name="mipluscv-detail",
        task=task,
        data=Stream.Config(faces=faces, presets=("codeformer_small", "codeformer_large")),
        output_dir=output_dir,
        max_steps=50_000,
        precision="bf16",
        checkpointing=True,
    )


@_noted
def honoraicamera_prior(faces: str = "", output_dir: str = "runs/honoraicamera-prior") -> Job:
    """HONORAICamera's first phase: Z-Image learns to restore at 1024 px, on photographs of any kind.

    Published are the base, the noise level, the degradation, the losses and a total batch of 128; the weights
    are OMGSR's, whose training it follows. Its autoencoder is not trained (as in the team's public entry to
    another track), so that latents are refined after the step: the predicted clean one is compared with that
    of the sharp picture, weight 5.

    Reference:
        NTIRE 2026 Challenge on Real-World Face Restoration, arXiv:2604.10532, section 4.3; OMGSR,
        arXiv:2508.08227.
    """
    task = OneStepTask.Config(
        stage=ZImage.Config(sigma=0.244, fold=False),
        adapters=(LoRA(net="transformer", rank=64, alpha=64, targets=_ZIMAGE),),
        losses=(Loss(name="mse"), Loss(name="dv3d", weight=5), Loss(name="latent_mse", weight=5)),
        adversary=Adversary.Config(net="dinov3", kind="soft_label", weight=0.5, image_px=1024),
        generator=Optimizer(learning_rate=5e-5, weight_decay=1e-4),
        discriminator=Optimizer(learning_rate=5e-5, weight_decay=1e-4),
    )
    return Job(
        name="honoraicamera-prior",
        task=task,
        data=Stream.Config(faces=faces, presets=("realesrgan_x1",), size_px=1024),
        output_dir=output_dir,
        max_steps=6_000,
        batch_size=1,
        accumulation=128,
        precision="bf16",
        checkpointing=True,
    )


@_noted
def honoraicamera(faces: str = "", output_dir: str = "runs/honoraicamera") -> Job:
    """HONORAICamera's second phase: a second adapter on the first, merged one, on faces of 512 px.

    Adds a CLIP loss to those of the first phase; its weight is our reading.

    Reference:
        NTIRE 2026 Challenge on Real-World Face Restoration, arXiv:2604.10532, section 4.3.
    """
    first = honoraicamera_prior(faces, output_dir)
    task = first.task
    assert isinstance(task, OneStepTask.Config)  # it is the one above
    assert task.adversary is not None
    task = replace(
        task,
        stage=ZImage.Config(sigma=0.244, fold=False, adapters=("honoraicamera/stage1",)),
        losses=(*task.losses, Loss(name="clip", weight=1.0)),
        adversary=replace(task.adversary, image_px=512),
    )
    return replace(
        first, name="honoraicamera", task=task, data=replace(first.data, size_px=512), accumulation=32
    )


@_noted
def omgsr_s(faces: str = "", output_dir: str = "runs/omgsr-s") -> Job:
    """OMGSR-S at 512 px as its authors train it: the degraded latent is moved into the schedule.

    All numbers are published. Their pictures lie in [-1,1]: the L1 of weight 0.5 there weighs 1 here. The
    adversary is frozen in the generator's turn, where theirs is moved by it.

    Reference:
        OMGSR, 2025, arXiv:2508.08227; GitHub wuer5/OMGSR `train/train_omgsr_s.py`.
    """
    timestep = 273
    task = OneStepTask.Config(
        stage=OMGSRS.Config(vae_lora=None, unet_lora=None, timestep=timestep, posterior="sample"),
        adapters=(
            LoRA(net="unet", rank=32, alpha=32, targets=(*_ATTENTION, *_CONVOLUTIONS)),
            LoRA(net="codec.vae.encoder", rank=16, alpha=16, targets=(*_ATTENTION, *_CONVOLUTIONS)),
        ),
        losses=(
            Loss(name="lrr", weight=5, level=timestep),
            Loss(name="dv3d", weight=5),
            Loss(name="l1", weight=1),
        ),
        adversary=Adversary.Config(net="dinov3", kind="soft_label", weight=0.5),
        generator=Optimizer(learning_rate=5e-5, weight_decay=1e-4),
        discriminator=Optimizer(learning_rate=5e-5, weight_decay=1e-4),
    )
    return Job(
        name="omgsr-s",
        task=task,
        data=Stream.Config(faces=faces, presets=("omgsr",)),
        output_dir=output_dir,
        max_steps=6_000,
        batch_size=1,
        accumulation=8,
        precision="bf16",
        ema_decay=None,
        save_every=1000,
        checkpointing=True,
    )


@_noted
def sdface(faces: str = "", output_dir: str = "runs/sdface") -> Job:
    """SDFace's two adapters on SDXL-Turbo: of the UNet's attention, and of the whole autoencoder.

    Ranks and layers are those of the published file; losses and data were never published, and are
    MiPlusCV's here.

    Reference:
        NTIRE 2025 Challenge on Real-World Face Restoration, arXiv:2504.14600, team 2.
    """
    task = OneStepTask.Config(
        stage=SDFace.Config(lora=None),
        adapters=(
            LoRA(net="unet", rank=32, alpha=32, targets=_ATTENTION),
            LoRA(net="codec.vae", rank=32, alpha=32, targets=(*_ATTENTION, "conv1", "conv2")),
        ),
        losses=(Loss(name="l1"), Loss(name="edge_dists"), Loss(name="arcface", weight=0.1)),
        adversary=Adversary.Config(net="dinov2", kind="hinge", weight=0.1),
        generator=Optimizer(learning_rate=5e-5, weight_decay=1e-2),
        discriminator=Optimizer(learning_rate=5e-5, weight_decay=1e-2),
    )
    return Job(
        name="sdface",
        task=task,
        data=Stream.Config(faces=faces, presets=("codeformer_small",)),
        output_dir=output_dir,
        max_steps=50_000,
        precision="bf16",
        checkpointing=True,
    )


@_noted
def tadsr(faces: str = "", output_dir: str = "runs/tadsr") -> Job:
    """TADSR on Stable Diffusion 2.1, for every timestep at once; no file of its authors goes in.

    Adapters, losses and their weights, timesteps, optimiser and a batch of 16 are published; their L2 lies on
    pictures in [-1,1], so that its weight of 1 is 4 here. Time layers are new, and change nothing at first.
    The degradation is the one for faces that their repository has. Ours: one constant prompt in place of a
    tagger's, 100,000 steps (the script's default), bf16 for its fp16.

    Reference:
        Zhang et al., 2025, arXiv:2508.16557; GitHub zty557/TADSR `train_tadsr.py`.
    """
    return Job(
        name="tadsr",
        task=TADSRTask.Config(),
        data=Stream.Config(faces=faces, presets=("tadsr_face",)),
        output_dir=output_dir,
        max_steps=100_000,
        batch_size=2,
        accumulation=8,
        precision="bf16",
        ema_decay=None,
        checkpointing=True,
    )


@_noted
def bvi(faces: str = "", output_dir: str = "runs/bvi") -> Job:
    """BVI's entry to NTIRE 2026: TADSR and its residual refiner, trained together.

    Published in words: the Charbonnier losses of details and gradients, the capped ratio of the correction,
    and that the corrected latent goes to the teacher. Their weights and numbers are our reading; all else is
    TADSR's. To begin with a TADSR of your own, set its stage's `vae` and `adapter`, and `new_time_layers`.

    Reference:
        NTIRE 2026 Challenge on Real-World Face Restoration, arXiv:2604.10532, team BVI.
    """
    task = TADSRTask.Config(refined=True, losses=BVI_LOSSES)
    return replace(tadsr(faces, output_dir), name="bvi", task=task)


@_noted
def face_unet(faces: str = "", output_dir: str = "runs/face-unet") -> Job:
    """A small U-Net for faces from nothing, of our own, on a CPU if need be.

    Faces are degraded at 512 px, for which the presets are made, and trained on at 256 px.
    """
    task = RestorerTask.Config(
        stage=FaceUNet.Config(),
        losses=(Loss(name="l1"), Loss(name="high_frequency")),
        generator=Optimizer(learning_rate=2e-4, schedule="cosine", warmup_steps=100),
    )
    data = Stream.Config(
        faces=faces,
        size_px=256,
        presets=("gfpgan", "codeformer_small", "codeformer_large"),
        degraded_px=512,
    )
    return Job(name="face-unet", task=task, data=data, output_dir=output_dir, max_steps=100_000, batch_size=8)


JOBS: dict[str, Callable[[str, str], Job]] = {
    "osdface-prompt": osdface_prompt,
    "osdface": osdface,
    "mipluscv-detail": mipluscv_detail,
    "honoraicamera-prior": honoraicamera_prior,
    "honoraicamera": honoraicamera,
    "omgsr-s": omgsr_s,
    "sdface": sdface,
    "face-unet": face_unet,
    "tadsr": tadsr,
    "bvi": bvi,
}


def get_job(name: str, faces: str = "", output_dir: str = "") -> Job:
    """The job of a name.

    Args:
        name: of `JOBS`.
        faces: what is trained on: a folder, a table, a list; see `Stream.Config`.
        output_dir: where everything goes; empty for `runs/NAME`.

    Raises:
        ConfigError: if there is none; says which ones there are.
    """
    if name not in JOBS:
        near = difflib.get_close_matches(name, JOBS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(JOBS)}"
        raise ConfigError(f"there is no training job {name!r}; {hint}")
    return JOBS[name](faces, output_dir or str(Path("runs") / name))
