"""Trainings in a process of their own, beside another or to be killed; run by test_processes.py."""

import os
import sys
from dataclasses import replace

from facerestore.stages.osdface import OSDFace
from facerestore.training import Job, Trainer
from facerestore.training.adversary import Adversary
from facerestore.training.one_step import OneStepTask
from facerestore.training.optimizer import Optimizer
from facerestore.training.stage_task import LoRA
from facerestore.training.stream import Stream
from facerestore.training.terms import Loss


def job(faces: str, output: str, optimizer: str, batch_size: int, max_steps: int) -> Job:
    moved = Optimizer(name=optimizer, learning_rate=1.0 if optimizer == "sgd" else 1e-3, clip_norm=None)
    task = OneStepTask.Config(
        stage=OSDFace.Config(),
        adapters=(LoRA(net="unet", rank=16, alpha=16, targets=("to_q", "to_v", "conv1")),),
        whole=("projector",),
        losses=(Loss(name="l1"), Loss(name="fid_proxy", weight=1e-9, made=True)),
        adversary=Adversary.Config(net="patch", weight=0.1),
        generator=moved,
        discriminator=moved,
    )
    whole = Job(
        name="launched",
        task=task,
        data=Stream.Config(faces=faces, held_back=0.2),
        output_dir=output,
        max_steps=1,
    )
    return replace(
        whole.tiny(),
        batch_size=batch_size,
        max_steps=max_steps,
        save_every=1,
        validate_every=100,
        ema_decay=None,
    )


if __name__ == "__main__":
    faces, output, batch_size, max_steps, *optimizers = sys.argv[1:]
    for name in optimizers:
        trainer = Trainer(job(faces, f"{output}/{name}", name, int(batch_size), int(max_steps)), device="cpu")
        assert (trainer.split > 0) == (os.environ.get("ACCELERATE_USE_FSDP") == "true")
        trainer.fit(lambda report: print(report.step, flush=True))
