"""Training of stages from pictures to pictures, and what comes out of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from facerestore.core.errors import ConfigError
from facerestore.core.state import RestorationState
from facerestore.recipes.training import face_unet
from facerestore.stages.base import Stage
from facerestore.stages.color_fix import ColorFix
from facerestore.stages.face_unet import FaceUNet
from facerestore.stages.realesrgan import RealESRGAN
from facerestore.training import Job, Trainer
from facerestore.training.adversary import Adversary
from facerestore.training.optimizer import Optimizer
from facerestore.training.record import psnr
from facerestore.training.restorer import RestorerTask
from facerestore.training.stage_task import LoRA
from facerestore.training.stream import Stream
from facerestore.training.terms import Loss
from facerestore.weights.store import WeightStore


@pytest.fixture
def small(faces: Path, tmp_path: Path) -> Job:
    """The job of the U-Net, at its smallest."""
    job = face_unet(str(faces), str(tmp_path / "run")).tiny()
    return replace(job, data=replace(job.data, held_back=0.2))


def of(job: Job, **changes: object) -> Job:
    """The job with another task."""
    return replace(job, task=replace(job.task, **changes))  # pyright: ignore[reportArgumentType]


def restored(stage: Stage, faces: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return stage(RestorationState.start(faces)).image


def test_the_exported_network_restores_as_the_trained_one_bit_for_bit(small: Job) -> None:
    trainer = Trainer(of(small, generator=Optimizer(learning_rate=1e-2)), device="cpu")
    assert trainer.fit()
    path, card = trainer.export()
    assert (path.name, card.name) == ("face_unet.safetensors", "README.md")
    config = replace(FaceUNet.Config().tiny(), weight="own/face_unet")
    loaded = config.build(WeightStore(paths={"own/face_unet": path}))
    loaded.place(torch.device("cpu"), "fp32")
    shown = trainer.stream.validation()
    assert shown is not None
    for lq in shown.lq.split(1):
        assert torch.equal(restored(loaded, lq), trainer.restore(lq, (0,)))
        assert not torch.equal(restored(loaded, lq), lq)
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["stage"])["square_px"] == 64


def test_it_learns_the_faces_that_it_is_shown(small: Job) -> None:
    trainer = Trainer(of(small, generator=Optimizer(learning_rate=5e-3)), device="cpu")
    batch, optimizer = trainer.stream.batch(0), trainer.optimizers["generator"]
    for _ in range(60):
        trainer.task.loss("generator", batch)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        after = psnr(trainer.task.restore(batch.lq, batch.seeds), batch.hq)
    assert (after > psnr(batch.lq, batch.hq) + 0.3).all()


def test_an_adversary_plays_along_and_both_move(small: Job) -> None:
    trainer = Trainer(of(small, adversary=Adversary.Config(net="patch", made=True)), device="cpu")
    before = {name: [value.clone() for value in net.values()] for name, net in trainer.players.items()}
    assert set(trainer.train_step()) == {
        *("generator/l1", "generator/high_frequency"),
        *("generator/adversary", "discriminator/adversary"),
    }
    for name, net in trainer.players.items():
        assert not all(map(torch.equal, net.values(), before[name])), name


def test_an_adapter_alone_moves_where_one_is_named(small: Job, tmp_path: Path) -> None:
    lora = LoRA(net="net", rank=2, alpha=2, targets=("conv1", "last"))
    trainer = Trainer(of(small, adapters=(lora,), whole=()), device="cpu")
    assert all("lora" in name for name in trainer.players["generator"])
    trainer.train_step()
    names = [path.relative_to(tmp_path).as_posix() for path in trainer.export(tmp_path)]
    assert names == ["net/adapter_config.json", "net/adapter_model.safetensors", "README.md"]


def test_any_stage_with_pictures_is_trained(small: Job, tmp_path: Path) -> None:
    stage = replace(RealESRGAN.Config().tiny(), entry_px=64)
    trainer = Trainer(of(small, stage=stage, before=ColorFix.Config()), device="cpu")
    trainer.train_step()
    path, _ = trainer.export(tmp_path)
    config = replace(stage, weight="own/mine")
    loaded = config.build(WeightStore(paths={"own/mine": path})).place(torch.device("cpu"), "fp32")
    lq = trainer.stream.batch(0).lq[:1]
    assert torch.equal(restored(loaded, lq), trainer.restore(lq, (0,)))


def test_a_judge_of_latents_is_refused() -> None:
    with pytest.raises(ConfigError, match="no latents"):
        RestorerTask.Config(
            stage=FaceUNet.Config(), losses=(Loss(name="l1"),), adversary=Adversary.Config(net="latent")
        )


def test_faces_are_degraded_at_the_size_that_presets_are_made_for(faces: Path) -> None:
    def lq(degraded_px: int | None) -> torch.Tensor:
        config = Stream.Config(
            faces=str(faces), size_px=64, degraded_px=degraded_px, presets=("codeformer_small",), workers=0
        )
        batch = Stream(config, seed=0, batch_size=4, device=torch.device("cpu")).batch(0)
        return psnr(batch.lq, batch.hq)

    assert (lq(512) > lq(None) + 3).all()
