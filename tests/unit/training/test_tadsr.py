"""TADSR and BVI in training: every timestep at once, what moves, and what comes out is what a stage loads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from facerestore.core.errors import ConfigError, KeyMismatch
from facerestore.core.state import RestorationState
from facerestore.diffusion.backbones import sd_vae
from facerestore.diffusion.components import component
from facerestore.diffusion.configs import TINY_SD_VAE
from facerestore.diffusion.time_vae import encode_at
from facerestore.recipes.training import get_job
from facerestore.stages.tadsr import TADSR
from facerestore.training import Job, Trainer
from facerestore.training.optimizer import Optimizer
from facerestore.training.stage_task import LoRA
from facerestore.training.tadsr import TIMESTEPS, TADSRTask
from facerestore.training.task import Batch, only
from facerestore.training.terms import Loss
from facerestore.weights.convert import read_checkpoint
from facerestore.weights.store import WeightStore
from tests.made import downloads

FAST = Optimizer(learning_rate=2e-3, weight_decay=1e-2)
KINDS = pytest.mark.parametrize("kind", ["tadsr", "bvi"])


def job_of(job: Job, kind: str, **changes: Any) -> Job:
    """The job of a name at its smallest, on the faces of another, faster, in float32."""
    task: Any = replace(get_job(kind).task, generator=FAST, second=FAST, **changes)
    return replace(job, task=task.tiny(), max_steps=4, save_every=2, validate_every=4)


def started(job: Job) -> Any:
    return Trainer(job, device="cpu")


def trained(job: Job, steps: int = 2) -> Any:
    trainer = started(replace(job, ema_decay=None))
    for _ in range(steps):
        trainer.train_step()
    return trainer


def pictures(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(5))


def restored_at(task: Any, timestep: int, seeds: tuple[int, ...] = (0, 1)) -> Tensor:
    with torch.no_grad():
        return task.stage.at(pictures(), seeds, torch.full((2,), timestep))["image"].clamp(0, 1)


def test_timesteps_are_those_of_the_script() -> None:
    assert list(TIMESTEPS) == np.linspace(1, 999, 50, dtype=int).tolist()


def test_a_new_student_is_the_base_model_at_every_timestep(job: Job) -> None:
    """Time layers and refiner change nothing before they are trained."""
    stage = started(job_of(job, "bvi")).task.stage
    base = component(WeightStore(), None, sd_vae, TINY_SD_VAE)
    images = pictures() * 2 - 1
    with torch.no_grad():
        told = encode_at(stage.codec.vae, images, torch.tensor([1, 999]))
        torch.testing.assert_close(told, base.encode(images).latent_dist.parameters, atol=1e-6, rtol=0)
        assert bool((stage.at(pictures(), (0, 1), torch.tensor([1, 999]))["correction"] == 0).all())


def test_each_face_is_asked_about_at_a_timestep_of_its_own(job: Job) -> None:
    trainer = trained(job_of(job, "tadsr"))
    both = Batch(hq=pictures(), lq=pictures(), seeds=(3, 4))
    with torch.no_grad():
        fields = trainer.task.made_of(both.lq, both)
        asked = fields["timesteps"].tolist()
        assert len(set(asked)) == 2 and set(asked) <= set(TIMESTEPS)
        alone = trainer.task.made_of(both.lq[1:], replace(both, seeds=(4,)))
    torch.testing.assert_close(alone["image"], fields["image"][1:], atol=2e-5, rtol=0)


@KINDS
def test_every_player_trains_and_none_moves_another(job: Job, kind: str) -> None:
    trainer = started(job_of(job, kind))
    assert list(trainer.players) == ["generator", "score"]
    batch = trainer.stream.batch(0)
    for name in trainer.players:
        with only(name, trainer.players):
            loss, _ = trainer.task.loss(name, batch)
        loss.backward()
        for other, owned in trainer.players.items():
            touched = [parameter.grad is not None for parameter in owned.values()]
            assert any(touched) == (other == name), (name, other)
            for parameter in owned.values():
                parameter.grad = None


@KINDS
def test_gradients_reach_everything_that_is_trained(job: Job, kind: str) -> None:
    """After two steps, before which what stands behind a zero layer gets none."""
    trainer = trained(job_of(job, kind))
    every = dict(trainer.task.named_parameters())
    frozen = {name: value.clone() for name, value in every.items() if not value.requires_grad}
    loss, terms = trainer.task.loss("generator", trainer.stream.batch(2))
    loss.backward()
    dead = [name for name, value in trainer.task.trained().items() if not float(value.grad.abs().sum())]
    assert not dead
    groups = {name.partition(".")[0] for name in trainer.task.trained()}
    assert groups == {"unet", "vae"} | ({"noise_refiner"} if kind == "bvi" else set())
    assert {"blurred_mse", "lpips", "score"} <= terms.keys()
    assert ("ratio_cap" in terms) == (kind == "bvi")
    trainer.train_step()
    assert frozen and all(torch.equal(every[name], value) for name, value in frozen.items())


def test_layers_and_keys_are_those_of_the_published_file(job: Job, tmp_path: Path) -> None:
    for kind, recipe in (("tadsr", "tadsr"), ("bvi", "ntire2026/bvi")):
        downloads.write(recipe, tmp_path / kind)
        published = read_checkpoint(next((tmp_path / kind).rglob(f"{kind}.pkl"))).tensors
        own = started(job_of(job, kind)).task.trained()
        assert own.keys() == published.keys()


@KINDS
def test_what_is_exported_makes_the_same_picture(job: Job, tmp_path: Path, kind: str) -> None:
    trainer = trained(job_of(job, kind))
    files = trainer.export(tmp_path / "export")
    assert {path.relative_to(tmp_path / "export").as_posix() for path in files} == {
        "README.md",
        "tadsr/weights.safetensors",
        "tadsr/time-vae/config.json",
        "tadsr/time-vae/diffusion_pytorch_model.safetensors",
    }
    own = tmp_path / "export" / "tadsr"
    paths = {"tadsr/time-vae": own / "time-vae", "tadsr/weights": own / "weights.safetensors"}
    refiner = "bvi/refiner" if kind == "bvi" else None
    store = WeightStore(paths=paths | ({refiner: own / "weights.safetensors"} if refiner else {}))
    seen: list[Tensor] = []
    for timestep in (1, 500, 999):
        config = TADSR.Config(unet=None, prompt=None, refiner=refiner, timestep=timestep, posterior="sample")
        with torch.no_grad():
            image = config.build(store)(RestorationState.start(pictures(), (0, 1))).image
        torch.testing.assert_close(image, restored_at(trainer.task, timestep), atol=1e-5, rtol=0)
        seen.append(image)
    assert (seen[0] - seen[2]).abs().max() > 1e-3
    validated = trainer.task.restore(pictures(), (0, 1))
    torch.testing.assert_close(validated, seen[1], atol=2e-5, rtol=0)
    with safe_open(own / "weights.safetensors", framework="pt") as file:
        assert file.metadata()["job"] == "test" and "timestep" not in file.metadata()


def test_training_goes_on_from_a_file(job: Job, tmp_path: Path) -> None:
    trainer = trained(job_of(job, "tadsr"))
    trainer.export(tmp_path / "export")
    own = tmp_path / "export" / "tadsr"
    store = WeightStore(
        paths={"tadsr/time-vae": own / "time-vae", "tadsr/weights": own / "weights.safetensors"}
    )
    config: Any = job_of(job, "bvi").task
    again = replace(
        config,
        stage=replace(config.stage, vae="tadsr/time-vae", adapter="tadsr/weights"),
        new_time_layers=False,
    )
    task = again.build(store)
    assert torch.equal(restored_at(task, 500), restored_at(trainer.task, 500))  # the refiner is new
    other = replace(again, adapters=again.adapters[:3])
    with pytest.raises(KeyMismatch, match="unexpected"):
        other.build(store)
    wider = replace(again, adapters=tuple(replace(lora, rank=3) for lora in again.adapters))
    with pytest.raises(KeyMismatch, match="misshapen"):
        wider.build(store)


def test_two_steps_and_two_more_are_four_bit_for_bit(job: Job, tmp_path: Path) -> None:
    whole = started(job_of(job, "bvi"))
    losses: list[dict[str, float]] = []
    assert whole.fit(lambda report: losses.append(report.losses))
    halved = replace(job_of(job, "bvi"), output_dir=str(tmp_path / "halved"))
    assert started(replace(halved, max_steps=2)).fit()
    second = started(halved)
    again: list[dict[str, float]] = []
    assert second.step == 2 and second.fit(lambda report: again.append(report.losses))
    assert again == losses[2:]
    for group, named in whole._state().tensors.items():
        other = second._state().tensors[group]
        assert named.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in named.items()), group


def test_saving_memory_changes_nothing_else(job: Job, tmp_path: Path) -> None:
    plain = started(job_of(job, "bvi"))
    thrifty = started(replace(job_of(job, "bvi"), checkpointing=True, output_dir=str(tmp_path / "thrifty")))
    assert thrifty.task.stage.codec.vae.encoder.gradient_checkpointing
    assert plain.train_step() == thrifty.train_step()
    others = thrifty.task.trained()
    assert all(torch.allclose(value, others[name], atol=1e-6) for name, value in plain.task.trained().items())


def test_bf16_trains_float32_parameters(job: Job) -> None:
    trainer = started(replace(job_of(job, "bvi"), precision="bf16"))
    assert all(value == value for value in trainer.train_step().values())
    assert {value.dtype for value in trainer.task.trained().values()} == {torch.float32}
    assert {value.dtype for value in trainer.task.stage.codec.parameters()} == {torch.float32}
    assert trainer.task.stage.unet.conv_out.get_base_layer().weight.dtype == torch.bfloat16
    assert bool(trainer.restore(pictures(), (0, 1)).isfinite().all())


def test_weights_are_named_and_what_cannot_be_is_refused(job: Job) -> None:
    config = TADSRTask.Config()
    assert set(config.weights()) == {
        "sd21-base/unet",
        "sd21-base/vae",
        "sd21-base/prompt-empty",
        "sd21-base/prompt-face",
        "sd21-base/prompt-negative",
        "torchvision/vgg16",
    }
    tiny: Any = config.tiny()
    for wrong, message in (
        ({"losses": (Loss(name="latent_mse"),)}, "z_hq"),
        ({"stage": replace(tiny.stage, codec="tiny")}, "codec is full"),
        ({"whole": ("unet.nothing",)}, "no module 'unet.nothing'"),
        ({"adapters": (LoRA(net="unet", rank=2, alpha=4, targets=("nothing",)),)}, "is called"),
    ):
        with pytest.raises(ConfigError, match=message):
            replace(tiny, **wrong).build(WeightStore())
