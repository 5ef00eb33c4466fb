"""What frozen networks say of every face, computed once and read in each step: `Job.cache`."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from facerestore.core.errors import ConfigError
from facerestore.data.augment import MIRRORED
from facerestore.training.job import Job
from facerestore.training.one_step import OneStepTask
from facerestore.training.stage_task import StageTask
from facerestore.training.stream import MOMENTS, Stream
from facerestore.training.task import Task


def keep(task: Task, stream: Stream, job: Job, together: Callable[[], None]) -> None:
    """Compute what can be, unless an earlier run has, and let the batches have it.

    * Where a stage restores first: its outputs, and the degraded faces, which then are always degraded alike.
    * Where `z_hq` is read: the posteriors of the sharp faces. Latents are taken from them in each step with
      the seed of the sample, so that the training is the same as without.
    * Where degraded faces do not change, and no part of the autoencoder is trained: the posteriors of what
      goes into the stage.

    Where faces are mirrored in training, those of the mirrored ones are kept too: they are no mirrored ones.

    Args:
        task: built; the networks are asked as they are now.
        stream: of its faces.
        job: says where.
        together: waits for all processes; the first one computes.

    Raises:
        ConfigError: if there is nothing to keep, or what is kept would not be what is trained on.
        OutputError: if a file cannot be written.
    """
    asked: Any = task
    before = task.before if isinstance(task, StageTask) else None
    fixed = before is not None or "lq" in stream.index.entries[0].files
    sides = _sides(task, job, fixed=fixed) if isinstance(task, OneStepTask) else ()
    if before is None and not sides:
        raise ConfigError(
            f"{job.name}: there is nothing to keep in cache: no stage before, no loss that reads latents of "
            "the sharp face, no fixed degraded faces before a frozen autoencoder; leave cache empty"
        )

    def restored(batch: Mapping[str, Any]) -> dict[str, Tensor]:
        lq = stream.lq(batch)
        return {"lq": lq, "coarse": asked.coarse(lq, tuple(batch["seed"])).float().clamp(0, 1)}

    def encoded(batch: Mapping[str, Any]) -> dict[str, Tensor]:
        faces = {"z_hq": batch["hq"], "z_lq": batch.get("coarse", batch.get("lq"))}
        return {
            f"{side}{MOMENTS}{twin}": asked.moments(faces[side].flip(3) if twin else faces[side])
            for side in sides
            for twin in twins
        }

    made_by = [] if before is None else [before.config.fingerprint()]
    if before is not None:
        presets = (preset.fingerprint() for preset in stream.presets)
        stream.keep(job.cache, ("lq", "coarse"), restored, (*made_by, *presets))
        together()
        stream.use_kept()
    if sides:
        twins = ("", MIRRORED) if job.data.augment.flip > 0 else ("",)
        fields = [f"{side}{MOMENTS}{twin}" for side in sides for twin in twins]
        stream.keep(job.cache, fields, encoded, (*made_by, asked.config.stage.fingerprint(), job.precision))
        together()
        stream.use_kept()


def _sides(task: OneStepTask, job: Job, *, fixed: bool) -> tuple[str, ...]:
    """Whose posteriors are kept: `z_hq`, `z_lq`.

    Raises:
        ConfigError: if those of the sharp face are read and cannot be.
    """
    augment = job.data.augment
    cut = augment.zoom > 1 or augment.crop_px is not None
    moved = [name for name, value in task.stage.codec.named_parameters() if value.requires_grad]
    sides: list[str] = []
    if "z_hq" in task.config.reads():
        if cut:
            raise ConfigError(
                f"{job.name}: data.augment cuts faces anew in each step, and latents of a part are no part "
                "of latents; set zoom to 1 and crop_px to none, or leave cache empty"
            )
        # An adapter is left out when the sharp face is encoded; what is trained in full is not.
        whole = [name for name in moved if "lora_" not in name and "decoder." not in name]
        if whole:
            raise ConfigError(
                f"{job.name}: the encoder is trained in full ({whole[0]}), so that what it says of sharp "
                "faces changes in each step; leave cache empty"
            )
        sides.append("z_hq")
    if fixed and not moved and not cut:
        sides.append("z_lq")
    return tuple(sides)
