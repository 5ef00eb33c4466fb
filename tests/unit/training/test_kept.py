"""What is computed once for a training: the same steps as without, and a refusal where they would not be."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from facerestore.core.errors import ConfigError
from facerestore.data import Augment
from facerestore.diffusion.codec import LatentCodec
from facerestore.recipes.training import face_unet
from facerestore.stages.osdface import OSDFace
from facerestore.training import Job, Trainer
from facerestore.training.stage_task import LoRA
from facerestore.training.stream import Stream
from facerestore.training.terms import Loss


@pytest.fixture
def latent(job: Job) -> Job:
    """A training that reads the latents of sharp faces, drawn from their posterior, half of them mirrored."""
    stage = replace(job.task.stage, posterior="sample")
    losses = (Loss(name="l1"), Loss(name="latent_mse"))
    return replace(job, task=replace(job.task, stage=stage, losses=losses, adversary=None), max_steps=4)


@pytest.fixture
def second(job: Job) -> Job:
    """A training behind another stage, with an autoencoder that is not trained."""
    return replace(job, task=replace(job.task, before=OSDFace.Config().tiny()), max_steps=3)


def cached(job: Job, folder: Path) -> Job:
    return replace(job, cache=str(folder / "cache"), output_dir=str(folder / "cached"))


def curve(job: Job) -> list[dict[str, float]]:
    losses: list[dict[str, float]] = []
    assert Trainer(job, device="cpu").fit(lambda report: losses.append(report.losses))
    return losses


def files(folder: Path) -> list[Path]:
    return [path for path in (folder / "cache").rglob("*") if path.is_file()]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every picture that an autoencoder encodes from now on, once a call."""
    seen: list[Tensor] = []
    plain = LatentCodec.moments

    def moments(codec: LatentCodec, image: Tensor) -> Tensor:
        seen.append(image)
        return plain(codec, image)

    monkeypatch.setattr(LatentCodec, "moments", moments)
    return seen


def test_a_training_is_the_same_with_kept_latents_of_sharp_faces(
    latent: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = curve(latent)
    kept = Trainer(cached(latent, tmp_path), device="cpu")
    assert len(files(tmp_path)) == 2 * len(kept.stream.index)  # of the face, and of the mirrored one
    encoded = counted(monkeypatch)
    again: list[dict[str, float]] = []
    held = kept.stream.held
    kept.stream.held = None  # no validation, which encodes too
    assert kept.fit(lambda report: again.append(report.losses))
    kept.stream.held = held
    assert len(encoded) == latent.max_steps  # degraded faces are others in each step
    for ours, theirs in zip(again, plain, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_mirrored_faces_have_latents_of_their_own(latent: Job, tmp_path: Path) -> None:
    trainer = Trainer(cached(latent, tmp_path), device="cpu")
    plain = Trainer(latent, device="cpu")
    config = replace(latent.data, augment=Augment(flip=0))
    still = Stream(config, seed=latent.seed, batch_size=latent.batch_size, device=trainer.device)
    mirrored: set[bool] = set()
    for step in range(4):
        batch, other = trainer.stream.batch(step), plain.stream.batch(step)
        assert torch.equal(batch.lq, other.lq)
        assert torch.equal(batch.hq, other.hq)
        wanted = trainer.task.moments(batch.hq)
        assert torch.allclose(batch.moments["z_hq"], wanted, atol=1e-5)
        unlike = (wanted - trainer.task.moments(batch.hq.flip(3)).flip(3)).abs().amax(dim=(1, 2, 3))
        assert bool((unlike > 1e-3).all())  # so that flipping latents would have been wrong
        pairs = zip(batch.hq, still.batch(step).hq, strict=True)
        mirrored |= {not torch.equal(face, other) for face, other in pairs}
    assert mirrored == {True, False}


def test_outputs_of_the_stage_before_are_kept_with_their_latents(
    second: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(cached(second, tmp_path), device="cpu")
    count = len(trainer.stream.index)
    kinds = [path.name.split(".", 1)[1] for path in files(tmp_path)]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "lq.png": count,
        "coarse.png": count,
        "z_lq_moments.safetensors": count,
        "z_lq_moments_mirrored.safetensors": count,
    }
    task: Any = trainer.task
    batch = trainer.stream.batch(0)
    assert batch.coarse is not None
    wanted = task.coarse(batch.lq, batch.seeds)
    assert (batch.coarse - wanted).abs().mean(dim=(1, 2, 3)).max() < 2e-2  # 8 bits, and mirrored
    assert torch.allclose(batch.moments["z_lq"], task.moments(batch.coarse), atol=1e-5)
    without = task.made_of(batch.coarse, replace(batch, moments={}))
    encoded = counted(monkeypatch)
    fields = task.fields(batch)
    assert not encoded
    for name in ("image", "z_lq", "z_0"):
        assert torch.allclose(fields[name], without[name], atol=1e-4), name
    assert trainer.fit()

    again = Trainer(replace(cached(second, tmp_path), max_steps=4), device="cpu")
    assert torch.equal(again.stream.batch(0).lq, batch.lq)
    assert len(files(tmp_path)) == 4 * count


def test_of_pairs_the_degraded_latents_are_kept(job: Job, faces: Path, tmp_path: Path) -> None:
    paired = replace(job, data=replace(job.data, lq=str(faces)))
    trainer = Trainer(cached(paired, tmp_path), device="cpu")
    batch = trainer.stream.batch(0)
    assert set(batch.moments) == {"z_lq"}
    assert torch.allclose(batch.moments["z_lq"], trainer.task.moments(batch.lq), atol=1e-5)


def test_nothing_is_computed_twice(latent: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Trainer(cached(latent, tmp_path), device="cpu")
    encoded = counted(monkeypatch)
    Trainer(cached(latent, tmp_path), device="cpu")
    assert not encoded
    Trainer(replace(cached(latent, tmp_path), data=replace(latent.data, size_px=96)), device="cpu")
    assert encoded  # of another size


def test_what_is_trained_is_not_kept(second: Job, tmp_path: Path) -> None:
    lora = LoRA(net="codec.vae.encoder", rank=2, alpha=2, targets=("conv1",))
    task = replace(second.task, adapters=(*second.task.adapters, lora))
    assert not Trainer(cached(replace(second, task=task), tmp_path), device="cpu").stream.batch(0).moments


def test_what_would_change_the_training_is_refused(
    latent: Job, job: Job, faces: Path, tmp_path: Path
) -> None:
    cut = replace(latent, data=replace(latent.data, augment=Augment(zoom=1.2)))
    with pytest.raises(ConfigError, match="cuts faces anew"):
        Trainer(cached(cut, tmp_path), device="cpu")
    whole = replace(latent, task=replace(latent.task, whole=("codec.vae.encoder",)))
    with pytest.raises(ConfigError, match="trained in full"):
        Trainer(cached(whole, tmp_path), device="cpu")
    for idle in (job, face_unet(str(faces), str(tmp_path / "unet")).tiny()):
        with pytest.raises(ConfigError, match="nothing to keep"):
            Trainer(cached(idle, tmp_path), device="cpu")
    assert not files(tmp_path)
