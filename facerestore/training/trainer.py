"""The loop: every player's turn on each batch, checkpoints, validation, and a resume that changes nothing.

The one door to accelerate. Nothing random is kept between steps: every draw follows from the seed of its
sample, and the samples from the number of the step. So a resume needs the step and the tensors, and with two
processes each computes its part of the batch that one would.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facerestore.core.errors import ConfigError, TrainingDiverged, TrainingError
from facerestore.core.precision import Target
from facerestore.training import checkpoint
from facerestore.training.checkpoint import Checkpoint
from facerestore.training.ema import Average
from facerestore.training.fid_queue import FidQueue
from facerestore.training.job import MAY_DIFFER, Job
from facerestore.training.kept import keep
from facerestore.training.record import Record
from facerestore.training.split import asked_to_split, split
from facerestore.training.stream import Stream
from facerestore.training.task import GENERATOR, Batch, Task, Terms, only, trainable
from facerestore.weights.store import WeightStore

_ANSWERS = (
    "Lower batch_size and raise accumulation by as much (the same steps, less memory), set "
    "checkpointing=true, choose precision=bf16, or train smaller faces"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One step, as `fit` tells it.

    Attributes:
        step: steps done, this one counted.
        max_steps: of the job.
        losses: the mean over the batch of every term of every player, as "player/term".
        faces_per_second: of this step, over all processes.
    """

    step: int
    max_steps: int
    losses: dict[str, float]
    faces_per_second: float


class Trainer:
    """Trains a job, or goes on with it where its output folder holds checkpoints of it.

    Args:
        job: what is trained.
        store: where weights are found.
        device: `auto | cpu | cuda[:N] | mps`; with several processes each takes its own.

    Attributes:
        split: how many frozen parameters lie split over all processes, where these were launched with FSDP;
            then `restore` has to be called by all of them.

    Raises:
        ConfigError: if the job cannot be trained, as with a folder without faces.
        WeightsError: if a weight is missing, or no checkpoint is whole.
        ResumeMismatch: if the folder holds another job's training; names what differs.
    """

    def __init__(self, job: Job, store: WeightStore | None = None, *, device: str = "auto") -> None:
        job.require_boxes()
        self.job = job
        self.folder = Path(job.output_dir)
        self.accelerator = _accelerator(device)
        self.device: torch.device = self.accelerator.device
        self.task = self._built(store or WeightStore())
        self.players = {name: trainable(net) for name, net in self.task.players().items()}
        for name, owned in self.players.items():
            if not owned:
                raise ConfigError(f"{job.name}: nothing is trainable in the player {name!r}")
        self.queues = {name: net for name, net in self.task.named_modules() if isinstance(net, FidQueue)}
        settings = job.task.optimizers()
        self.settings = {name: settings[name] for name in self.players}
        self.optimizers = {
            name: self.settings[name].build(owned.values()) for name, owned in self.players.items()
        }
        first = self.players[GENERATOR]
        self.average = None if job.ema_decay is None else Average(first, job.ema_decay)
        world = (self.accelerator.process_index, self.accelerator.num_processes)
        self.stream = Stream(
            job.data,
            seed=job.seed,
            batch_size=job.batch_size,
            device=self.device,
            world=world,
            record=self.folder,
        )
        if job.cache:
            with self._autocast():
                keep(self.task, self.stream, job, self.accelerator.wait_for_everyone)
        self.split = 0  # how many parameters lie in parts on all processes
        if asked_to_split():
            self.split = split(self.task, self.device, self.accelerator.num_processes)
        self.step = 0
        self.record = Record(self.folder, job, self.stream, main=self.accelerator.is_main_process)
        self._asked = self._stop = False  # by a signal; by all processes together
        self._resume()

    @property
    def checkpoints(self) -> Path:
        """Where they lie."""
        return self.folder / "checkpoints"

    def fit(self, on_step: Callable[[StepReport], None] | None = None) -> bool:
        """Train until `max_steps`, validating and saving on the way.

        A SIGTERM or an interrupt from the keyboard ends it after the step in hand, saved. However it ends,
        the threads that read ahead end with it.

        Args:
            on_step: told of every step, for progress bars.

        Returns:
            Whether the training is done; False where it was asked to stop before.

        Raises:
            TrainingDiverged: if a term of a loss is not finite; the checkpoints before are whole.
            TrainingError: if the memory does not suffice; says what to lower.
            OutputError: if nothing can be written any more; the last checkpoint is whole.
        """
        with _asked_to_stop(self), contextlib.closing(self.stream), self.record.open(self.step):
            if self.step == 0:
                self._validate()
            while self.step < self.job.max_steps and not self._stop:
                started = time.monotonic()
                losses = self.train_step()
                seconds = time.monotonic() - started
                faces = self.job.batch_size * self.job.accumulation * self.accelerator.num_processes
                report = StepReport(
                    step=self.step,
                    max_steps=self.job.max_steps,
                    losses=losses,
                    faces_per_second=faces / max(seconds, 1e-9),
                )
                self.record.step(report)
                if on_step is not None:
                    on_step(report)
                self._after_step()
            done = self.step >= self.job.max_steps
            self.record.finish(self.step, done=done)
        return done

    def train_step(self) -> dict[str, float]:
        """One step of every player on the next batch.

        Returns:
            The mean over the batch, and over processes, of every term, as "player/term".
        """
        sums: dict[str, Tensor] = {}
        try:
            for part in range(self.job.accumulation):
                self._pass(part, sums)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if _is_out_of_memory(error):
                raise TrainingError(f"step {self.step}: out of memory. {_ANSWERS}") from error
            raise
        for name, owned in self.players.items():
            self._move(name, owned)
        for queue in self.queues.values():
            queue.push(self.accelerator.gather)
        self.step += 1
        if self.average is not None:
            self.average.update(self.step)
        return self._means(sums)

    def restore(self, lq: Tensor, seeds: tuple[int, ...]) -> Tensor:
        """What the generator, averaged where it is, makes of faces (B,3,H,W) in [0,1]."""
        with self._averaged(), self._autocast(), torch.no_grad():
            return self.task.restore(lq.to(self.device), seeds).float().cpu()

    def export(self, folder: str | Path | None = None) -> tuple[Path, ...]:
        """Write what was trained, averaged where it is, with a model card.

        Args:
            folder: None takes `export` in the job's own.

        Returns:
            The files.
        """
        target = Path(folder) if folder is not None else self.folder / "export"
        with self._averaged():
            files = self.task.export(target, {"job": self.job.name, "step": str(self.step)})
        return (*files, self.record.card(target, files, self.step))

    def save(self) -> Path | None:
        """Write a checkpoint; the main process alone does."""
        path = None
        if self.accelerator.is_main_process:
            path = checkpoint.save(self.checkpoints, self._state())
            best = self.record.best_step
            spare = [] if best is None else [f"step-{best:08d}"]
            checkpoint.prune(self.checkpoints, self.job.keep, spare)
        self.accelerator.wait_for_everyone()
        return path

    # What one step is made of

    def _pass(self, part: int, sums: dict[str, Tensor]) -> None:
        batch = self.stream.batch(self.step, part, self.job.accumulation)
        for name in self.players:
            # Backward too: what is computed again on the way back must see the same parameters frozen.
            with only(name, self.players):
                with self._autocast():
                    loss, terms = self._loss(name, batch)
                for term, value in terms.items():
                    key = f"{name}/{term}"
                    sums[key] = sums.get(key, 0) + value.detach().float() / self.job.accumulation
                self._require_finite(name, loss, terms)
                (loss / self.job.accumulation).backward()

    def _loss(self, name: str, batch: Batch) -> tuple[Tensor, Terms]:
        try:
            return self.task.loss(name, batch)
        except TrainingDiverged as error:  # an objective knows its terms, and no step
            raise TrainingDiverged(f"{name}/{error.term}", self.step) from error

    def _move(self, name: str, owned: dict[str, nn.Parameter]) -> None:
        """Average a player's gradients over the processes, clip them, and let its optimiser step."""
        self._reduce(owned)
        settings, optimizer = self.settings[name], self.optimizers[name]
        if settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(owned.values(), settings.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(self.step, self.job.max_steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def _reduce(self, owned: dict[str, nn.Parameter]) -> None:
        if self.accelerator.num_processes == 1:
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in owned.values()]
        flat = self.accelerator.reduce(torch.cat([grad.flatten() for grad in grads]), reduction="mean")
        sizes = [grad.numel() for grad in grads]
        for parameter, mean in zip(owned.values(), flat.split(sizes), strict=True):
            parameter.grad = mean.view_as(parameter)

    def _require_finite(self, player: str, loss: Tensor, terms: dict[str, Tensor]) -> None:
        if bool(torch.isfinite(loss)):
            return
        wrong = [term for term, value in terms.items() if not bool(torch.isfinite(value))]
        raise TrainingDiverged(f"{player}/{wrong[0]}" if wrong else player, self.step)

    def _means(self, sums: dict[str, Tensor]) -> dict[str, float]:
        values = torch.stack(list(sums.values()))
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, reduction="mean")
        return dict(zip(sums, values.tolist(), strict=True))

    # Around the steps

    def _after_step(self) -> None:
        last = self.step == self.job.max_steps or self._asked_anywhere()
        if self.step % self.job.validate_every == 0 or self.step == self.job.max_steps:
            self._validate()
        if self.step % self.job.save_every == 0 or last:
            self.save()

    def _asked_anywhere(self) -> bool:
        """Whether any process was asked to stop, so that all stop after the same step."""
        if self.accelerator.num_processes > 1:
            asked = torch.tensor([float(self._asked)], device=self.device)
            self._stop = bool(self.accelerator.reduce(asked, reduction="sum").item())
        else:
            self._stop = self._asked
        return self._stop

    def _validate(self) -> None:
        main = self.accelerator.is_main_process
        shown = self.stream.validation() if main or self.split else None  # split networks are asked by all
        if shown is not None:
            pred = torch.cat(
                [self.restore(shown.lq[i : i + 1], shown.seeds[i : i + 1]) for i in range(len(shown.lq))]
            )
            if main:
                self.record.validation(self.step, shown, pred)
        self.accelerator.wait_for_everyone()

    def _built(self, store: WeightStore) -> Task:
        task = self.job.task.build(store, Target(device=self.device, dtype=self.job.precision))
        if self.job.checkpointing:
            for net in task.modules():
                enable: Any = getattr(net, "enable_gradient_checkpointing", None)
                if enable is not None and getattr(net, "_supports_gradient_checkpointing", True):
                    enable()
        return task

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.job.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.average is None else self.average.applied()

    def _kept(self) -> Iterator[tuple[str, Tensor]]:
        """Everything that training changes: parameters of the players, buffers beside them, and queues."""
        for player, net in self.task.players().items():
            for name, value in self.players[player].items():
                yield f"{player}/{name}", value
            persistent = net.state_dict().keys()
            for name, value in net.named_buffers():
                if name in persistent:
                    yield f"{player}/{name}", value
        for name, queue in self.queues.items():
            yield f"{name}/queue", queue.queue
            yield f"{name}/filled", queue.filled

    def _state(self) -> Checkpoint:
        optimizer: dict[str, Tensor] = {}
        for name, owned in self.players.items():
            facts = checkpoint.optimizer_tensors(self.optimizers[name], owned)
            optimizer |= {f"{name}/{key}": value for key, value in facts.items()}
        tensors = {"weights": dict(self._kept()), "optimizer": optimizer}
        if self.average is not None:
            tensors["average"] = self.average.tensors
        facts = {"job": self.job.to_dict(), "best": self.record.best}
        return Checkpoint(step=self.step, tensors=tensors, facts=facts)

    def _resume(self) -> None:
        found = checkpoint.newest(self.checkpoints)
        if found is None:
            return
        falling = any(one.schedule != "constant" for one in self.settings.values())
        free = tuple(field for field in MAY_DIFFER if field != "max_steps" or not falling)
        checkpoint.require_same(self.folder, found.facts["job"], self.job.to_dict(), free)
        with torch.no_grad():
            for name, value in self._kept():
                value.copy_(found.tensors["weights"][name])
        for name, owned in self.players.items():
            own = {
                key.partition("/")[2]: value
                for key, value in found.tensors["optimizer"].items()
                if key.startswith(f"{name}/")
            }
            checkpoint.load_optimizer(self.optimizers[name], owned, own)
        if self.average is not None:
            self.average.load(found.tensors["average"])
        self.step = found.step
        self.record.best = found.facts["best"]


def _accelerator(device: str) -> Any:
    """One process among those that `accelerate launch` started, or the only one.

    Raises:
        ConfigError: if it was started with DeepSpeed.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise ConfigError(
            "DeepSpeed wraps one network and one optimiser in an engine of its own, and here several players "
            "train in turns; launch without it, or split what is frozen with examples/accelerate/fsdp.yaml"
        )
    from accelerate import Accelerator

    if device == "cpu":
        return Accelerator(cpu=True)
    return Accelerator()


@contextlib.contextmanager
def _asked_to_stop(trainer: Trainer) -> Generator[None]:
    """Let SIGTERM and the first interrupt end the training after its step; a second ends it at once."""

    def ask(number: int, _: Any) -> None:
        if number == signal.SIGINT and trainer._asked:
            raise KeyboardInterrupt
        trainer._asked = True

    before: dict[int, Any] = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError):  # not the main thread: whoever runs it there decides
            before[number] = signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_out_of_memory(error: BaseException) -> bool:
    said = ("not enough memory", "can't allocate memory")  # by the allocators of a CPU
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in said)
