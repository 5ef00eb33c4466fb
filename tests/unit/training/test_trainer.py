"""The loop itself: what a step does, what a resume changes (nothing), and how a training may end."""

import contextlib
import json
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from facerestore.core.errors import ConfigError, OutputError, ResumeMismatch, TrainingDiverged, TrainingError
from facerestore.data import Place
from facerestore.training import Job, StepReport, Trainer
from facerestore.training.optimizer import Optimizer
from facerestore.training.task import only


def started(job: Job) -> Trainer:
    return Trainer(job, device="cpu")


def everything(trainer: Trainer) -> dict[str, Tensor]:
    """Every tensor that a training holds."""
    state = trainer._state().tensors
    return {
        f"{group}/{name}": value.clone() for group, named in state.items() for name, value in named.items()
    }


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_a_resumed_training_is_the_uninterrupted_one_bit_for_bit(job: Job, tmp_path: Path) -> None:
    whole = started(job)
    losses: list[dict[str, float]] = []
    assert whole.fit(lambda report: losses.append(report.losses))

    halved = replace(job, output_dir=str(tmp_path / "halved"))
    first = started(replace(halved, max_steps=3))
    assert first.fit()
    second = started(halved)
    assert second.step == 3
    again: list[dict[str, float]] = []
    assert second.fit(lambda report: again.append(report.losses))

    assert again == losses[3:]
    assert_same(everything(second), everything(whole))
    log = (tmp_path / "halved" / "log.jsonl").read_text().splitlines()
    assert [line["step"] for line in map(json.loads, log) if "generator/l1" in line] == [1, 2, 3, 4, 5, 6]


def test_every_player_trains_and_none_moves_the_other(job: Job) -> None:
    trainer = started(job)
    batch = trainer.stream.batch(0)
    for name in trainer.players:
        with only(name, trainer.players):
            loss, _ = trainer.task.loss(name, batch)
        loss.backward()
        for other, owned in trainer.players.items():
            touched = [parameter.grad is not None for parameter in owned.values()]
            assert any(touched) == (other == name), (name, other)
        for owned in trainer.players.values():
            for parameter in owned.values():
                parameter.grad = None
                assert parameter.requires_grad
    before = everything(trainer)
    trainer.train_step()
    changed = {name.split("/")[1] for name, value in everything(trainer).items()
               if name.startswith("weights/") and not torch.equal(value, before[name])}  # fmt: skip
    assert changed == {"generator", "discriminator"}


def test_frozen_networks_stay_as_they_were(job: Job) -> None:
    trainer = started(job)
    frozen = {name: value for name, value in trainer.task.named_parameters() if not value.requires_grad}
    before = {name: value.clone() for name, value in frozen.items()}
    trainer.train_step()
    assert before
    assert all(torch.equal(value, before[name]) and value.grad is None for name, value in frozen.items())


def test_accumulation_is_a_larger_batch(job: Job, tmp_path: Path) -> None:
    sgd = Optimizer(name="sgd", learning_rate=0.1, clip_norm=None)
    plain = replace(
        job, task=replace(job.task, generator=sgd, discriminator=sgd, adversary=None), ema_decay=None
    )
    large = started(replace(plain, batch_size=4))
    parts = started(replace(plain, batch_size=2, accumulation=2, output_dir=str(tmp_path / "parts")))
    assert large.train_step() == pytest.approx(parts.train_step(), rel=1e-5)
    one, other = everything(large), everything(parts)
    for name, value in one.items():
        assert torch.allclose(value, other[name], atol=1e-6), name


def test_sigterm_saves_and_leaves(job: Job) -> None:
    trainer = started(job)
    assert not trainer.fit(lambda report: os.kill(os.getpid(), signal.SIGTERM) if report.step == 2 else None)
    assert trainer.step == 2
    assert [path.name for path in sorted(trainer.checkpoints.iterdir())] == ["step-00000002"]
    assert json.loads((trainer.folder / "run.json").read_text())["state"] == "stopped"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert started(job).step == 2


@pytest.mark.parametrize("ending", ["done", "failed", "interrupted"])
def test_threads_that_read_ahead_end_with_the_training(job: Job, ending: str) -> None:
    def readers() -> set[threading.Thread]:
        return {one for one in threading.enumerate() if one.name.startswith("facerestore-data")}

    def on_step(report: StepReport) -> None:
        assert readers() > before
        if ending == "interrupted":
            raise KeyboardInterrupt
        if ending == "failed":
            raise OutputError("nothing can be written")

    before = readers()
    trainer = started(replace(job, data=replace(job.data, workers=1), max_steps=1))
    errors: dict[str, type[BaseException]] = {"failed": OutputError, "interrupted": KeyboardInterrupt}
    with pytest.raises(errors[ending]) if ending in errors else contextlib.nullcontext():
        trainer.fit(on_step)
    assert readers() == before


def test_another_configuration_is_refused_by_field(job: Job) -> None:
    started(replace(job, max_steps=3)).fit()
    other = replace(job, batch_size=1, task=replace(job.task, generator=Optimizer(learning_rate=5e-4)))
    with pytest.raises(ResumeMismatch) as caught:
        started(other)
    assert caught.value.fields == {"batch_size": (2, 1), "task.generator.learning_rate": (1e-3, 5e-4)}
    assert started(replace(job, save_every=1, keep=5)).step == 3  # what changes no step may differ


def test_a_falling_rate_holds_its_last_step(job: Job) -> None:
    falling = replace(job, task=replace(job.task, generator=Optimizer(schedule="cosine")))
    started(replace(falling, max_steps=3)).fit()
    with pytest.raises(ResumeMismatch, match="max_steps was 3 and is 6"):
        started(falling)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json"])
def test_of_a_checkpoint_cut_in_half_the_one_before_is_used(job: Job, name: str) -> None:
    trainer = started(job)
    trainer.fit()
    damaged = trainer.checkpoints / "step-00000006" / name
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2])
    with pytest.warns(RuntimeWarning, match=r"step-00000006.*step-00000003"):
        assert started(job).step == 3


def test_what_was_never_finished_is_passed_over_and_removed(job: Job) -> None:
    trainer = started(job)
    trainer.train_step()
    path = trainer.save()
    assert path is not None
    unfinished = path.with_name("step-00000009.unfinished")
    unfinished.mkdir()
    assert started(job).step == 1
    trainer.save()
    assert not unfinished.exists()


def test_a_full_disk_leaves_the_last_checkpoint(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = started(job)
    trainer.train_step()
    trainer.save()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    trainer.train_step()
    with monkeypatch.context() as patch:
        patch.setattr("facerestore.weights.write.save_file", full)
        with pytest.raises(OutputError, match="No space left"):
            trainer.save()
    assert [path.name for path in trainer.checkpoints.iterdir()] == ["step-00000001"]
    assert started(job).step == 1


def test_the_newest_and_the_best_are_kept(job: Job) -> None:
    trainer = started(replace(job, keep=1, save_every=1, validate_every=1, max_steps=4))
    trainer.record.best = {"step": 2, "psnr": 1000.0}
    trainer.fit()
    assert sorted(path.name for path in trainer.checkpoints.iterdir()) == ["step-00000002", "step-00000004"]


def test_a_term_that_is_not_finite_is_named_with_its_step(job: Job) -> None:
    trainer = started(job)
    trainer.train_step()
    with torch.no_grad():
        next(iter(trainer.players["discriminator"].values())).fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match=r"adversary.* at step 1") as caught:
        trainer.train_step()
    assert caught.value.step == 1


def test_out_of_memory_says_what_to_lower(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = started(job)

    def hungry(*_: object) -> None:
        torch.empty(1 << 60)

    monkeypatch.setattr(trainer.task, "loss", hungry)
    with pytest.raises(TrainingError, match="checkpointing=true"):
        trainer.train_step()


def test_a_player_with_nothing_to_train_is_an_error(job: Job) -> None:
    with pytest.raises(ConfigError, match="nothing is trainable in the player 'generator'"):
        started(replace(job, task=replace(job.task, adapters=(), whole=())))


def test_checkpointing_changes_memory_and_nothing_else(job: Job, tmp_path: Path) -> None:
    plain = started(job)
    thrifty = started(replace(job, checkpointing=True, output_dir=str(tmp_path / "thrifty")))
    assert thrifty.task.stage.unet.is_gradient_checkpointing
    assert plain.train_step() == thrifty.train_step()
    for (name, one), other in zip(everything(plain).items(), everything(thrifty).values(), strict=True):
        assert torch.allclose(one, other, atol=1e-6), name


def test_bf16_trains_float32_parameters(job: Job) -> None:
    trainer = started(replace(job, precision="bf16"))
    losses = trainer.train_step()
    assert all(value.dtype == torch.float32 for owned in trainer.players.values() for value in owned.values())
    assert all(value == value for value in losses.values())


def test_the_folder_says_what_was_done(job: Job) -> None:
    trainer = started(job)
    trainer.fit()
    run = json.loads((trainer.folder / "run.json").read_text())
    assert run["state"] == "done"
    assert run["step"] == 6
    assert run["fingerprint"] == job.fingerprint()
    assert run["data"]["pictures"] == len(trainer.stream.index)
    assert run["data"]["licences"] == {"not stated": run["data"]["pictures"]}
    assert {"torch", "facerestore"} <= run["versions"].keys()
    lines = [json.loads(line) for line in (trainer.folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation/psnr" in line] == [0, 3, 6]
    assert sorted(path.name for path in (trainer.folder / "sheets").iterdir()) == [
        f"step-{step:08d}.png" for step in (0, 3, 6)
    ]


def test_pictures_are_looked_at_once_for_all_resumes(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    first = started(job)
    seen = json.loads((first.folder / "seen.json").read_text())
    assert len(seen) == 10  # the two without colour are remembered too
    monkeypatch.setattr(Place, "picture", lambda place: pytest.fail(f"{place} is read again"))
    assert started(job).stream.index == first.stream.index
