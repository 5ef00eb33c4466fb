"""What training costs: a step against a loop by hand, the data path against a model, memory by backbone."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from data import faces as write_faces
from kept import BACKBONES, full_depth
from measure import Row, fresh, interleaved
from torch import nn

from facerestore.core.seeding import generator
from facerestore.losses.adversarial import discriminator_loss, generator_loss
from facerestore.losses.diffaugment import augment
from facerestore.losses.frequency import high_frequency_charbonnier
from facerestore.losses.pixel import l1
from facerestore.recipes.training import get_job
from facerestore.training import Trainer
from facerestore.training.adversary import Adversary
from facerestore.training.stream import Stream

CPU = torch.device("cpu")


def training(folder: Path) -> Iterator[Row]:
    """All of it; pictures and runs are written into the folder."""
    top = folder / "training"
    (top / "faces").mkdir(parents=True)
    write_faces(top / "faces", "png", {})
    with torch.enable_grad():  # the other parts are measured without
        yield from step(top)
        yield from data_path(top)
        yield from memory()


def step(top: Path) -> Iterator[Row]:
    """The trainer's step and a loop written by hand, on networks and faces alike."""
    job = get_job("face-unet", str(top / "faces"), str(top / "step"))
    small: Any = job.task  # the network works at the size of the faces, as the loop by hand lets it
    stage = replace(small.stage, square_px=128)
    task = replace(small, stage=stage, adversary=Adversary.Config(net="patch", weight=0.1))
    data = replace(job.data, size_px=128, degraded_px=None, held_back=0, workers=0)
    job = replace(job, task=task, data=data, batch_size=2, validate_every=10**6, save_every=10**6)
    ours, theirs = (Trainer(replace(job, output_dir=str(top / name)), device="cpu") for name in ("a", "b"))
    seconds = interleaved({"trainer": ours.train_step, "by hand": by_hand(theirs)})
    yield Row(
        name="a step of face-unet with a discriminator, 2 faces of 128 px, degraded on the way",
        value=seconds["trainer"],
        unit="s",
        compared_with="a loop written by hand",
        reference=seconds["by hand"],
        target=1.05,
    )


def by_hand(trainer: Trainer) -> Callable[[], None]:
    """The loop that a person would write for these modules: no players, no checks, no records."""
    task: Any = trainer.task
    net, judge, stream = task.stage.net, task.adversary.net, trainer.stream
    moves = list(net.parameters())
    optimizers = [torch.optim.AdamW(group, lr=2e-4) for group in (moves, list(judge.parameters()))]
    average = [value.detach().clone() for value in moves]
    done = 0

    def run() -> None:
        nonlocal done
        batch = stream.batch(done)
        done += 1
        draws = [generator(seed, "adversary/augment") for seed in batch.seeds]
        judge.requires_grad_(False)
        pred = net(batch.lq)
        loss = l1(pred, batch.hq).mean() + high_frequency_charbonnier(pred, batch.hq).mean()
        again = [generator(seed, "adversary/augment") for seed in batch.seeds]
        loss = loss + 0.1 * generator_loss(judge(augment(pred, draws)), "hinge").mean()
        loss.backward()
        judge.requires_grad_(True)
        third = [generator(seed, "adversary/augment") for seed in batch.seeds]
        real, fake = judge(augment(batch.hq, again)), judge(augment(pred.detach(), third))
        discriminator_loss(real, fake, "hinge").mean().backward()
        for optimizer, group in zip(optimizers, (moves, list(judge.parameters())), strict=True):
            nn.utils.clip_grad_norm_(group, 1.0)
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            for value, mean in zip(moves, average, strict=True):
                mean.lerp_(value, 0.001)

    return run


def data_path(top: Path) -> Iterator[Row]:
    """Faces of 512 px read and degraded by two threads, against what the tiny OSDFace consumes."""
    config = Stream.Config(faces=str(top / "faces"), held_back=0, presets=("gfpgan",))
    stream = Stream(config, seed=0, batch_size=8, device=CPU)
    job = get_job("osdface", str(top / "faces"), str(top / "tiny")).tiny()
    trainer = Trainer(replace(job, data=replace(job.data, held_back=0)), device="cpu")
    batch = trainer.stream.batch(0)
    steps = iter(range(10**6))

    def consume() -> None:
        for name in trainer.players:
            loss, _ = trainer.task.loss(name, batch)
            loss.backward()

    seconds = interleaved({"data": lambda: stream.batch(next(steps)), "model": consume})
    yield Row(
        name="faces of 512 px read and degraded as GFPGAN does, 2 threads",
        value=8 / seconds["data"],
        unit="faces/s",
        compared_with="what the tiny OSDFace consumes",
        reference=len(batch.hq) / seconds["model"],
        target=4,
        sense=">=",
    )
    stream.close()


def memory() -> Iterator[Row]:
    """By backbone at full depth, counted; and of one at a reduced depth, measured."""
    for name in BACKBONES:
        for checkpointing in (False, True):
            facts = full_depth(name, checkpointing=checkpointing)
            yield Row(
                name=f"{name}, bf16, 512 px, batch 1, kept for the way back"
                f"{', checkpointing' if checkpointing else ''}, by arithmetic",
                value=facts["kept"],
                unit="GB",
                compared_with="its weights",
                reference=facts["weights"],
                runs=1,
            )
        if facts["adapter"]:
            yield Row(
                name=f"{name}, an adapter of rank 16 with its gradient and AdamW in float32, by arithmetic",
                value=facts["adapter"],
                unit="GB",
                runs=1,
            )
    for checkpointing in (False, True):
        facts = fresh("training_memory", checkpointing=checkpointing)
        yield Row(
            name="SD 2.1's UNet with half its blocks, float32, peak of a pass there and back over its weights"
            f"{', checkpointing' if checkpointing else ''}",
            value=facts["peak_gb"],
            unit="GB",
            compared_with="kept for the way back, by arithmetic",
            reference=facts["kept_gb"],
            runs=1,
        )
