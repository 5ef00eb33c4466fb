"""What a training is: its task, its data and every number that decides what comes out, as frozen data."""

from dataclasses import dataclass, replace
from typing import Literal, Self

from facerestore.core.config import Config
from facerestore.core.errors import ConfigError
from facerestore.data.components import PARTS
from facerestore.training.stream import Stream
from facerestore.training.task import TaskConfig

MAY_DIFFER = (
    "kind",
    "max_steps",
    "output_dir",
    "save_every",
    "keep",
    "validate_every",
    "log_every",
    "workers",
    "notes",
)
"""Fields of a job with which a training may be resumed though they have changed: no step is another for it.
A schedule that falls until `max_steps` is, so with one that field may not differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Config):
    """One training.

    Raises:
        ConfigError: if a number is out of range.
    """

    name: str
    """What users type."""
    task: TaskConfig
    """Who is trained, with which losses."""
    data: Stream.Config
    """The faces, and how they are degraded."""
    output_dir: str
    """Where everything is written: checkpoints, logs, sheets, what is exported."""
    max_steps: int
    """Steps of every player's optimiser."""
    batch_size: int = 2
    """Faces per pass and process."""
    accumulation: int = 1
    """Passes whose gradients make one step."""
    seed: int = 0
    """From which the order of the faces and every draw follow."""
    cache: str = ""
    """Folder in which what frozen networks say of every face is kept, computed once: outputs of the stage
    before, with faces that then are always degraded alike, and what latents are taken from (see
    `training.kept`); empty computes it in every step."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16` computes the networks in bf16 and keeps what is trained, and the losses' sums, in float32."""
    checkpointing: bool = False
    """Whether activations are computed again on the way back, where a network can: slower, less memory."""
    ema_decay: float | None = 0.999
    """Of the average of the generator, which is validated and exported; None does without one."""
    save_every: int = 500
    """Steps between checkpoints; the last step is always saved."""
    keep: int = 2
    """Newest checkpoints that stay; the best one stays too."""
    validate_every: int = 500
    """Steps between validations on the fixed faces."""
    log_every: int = 10
    """Steps between lines of the log."""
    notes: str = ""
    """For the cards: what was published of it, and what is our reading."""

    def __post_init__(self) -> None:
        counts = (self.max_steps, self.batch_size, self.accumulation, self.save_every, self.keep)
        if min(*counts, self.validate_every, self.log_every) < 1:
            raise ConfigError(f"{self.name}: steps, sizes and counts are 1 or more, got {self}")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise ConfigError(f"{self.name}: ema_decay lies in [0,1), or is none, got {self.ema_decay}")

    def require_boxes(self) -> None:
        """Check that the data says where eyes and mouths lie, if a loss looks at them.

        Raises:
            ConfigError: if it does not; says what makes the file.
        """
        if self.task.reads() & set(PARTS) and not self.data.components:
            raise ConfigError(
                f"{self.name}: a loss looks at eyes and mouths, and data.components names no file that says "
                "where they lie; `facerestore data components FACES -o parts.json` makes one"
            )

    def tiny(self) -> Self:
        """The same with a tiny task on small faces, for a few steps: what the tests run."""
        return replace(
            self,
            task=self.task.tiny(),
            data=self.data.tiny(),
            max_steps=4,
            batch_size=2,
            accumulation=1,
            precision="fp32",  # which every CPU computes in hardware
            save_every=2,
            validate_every=2,
            log_every=1,
        )
