"""Score distillation in a training: three players, one UNet that is teacher and second network in one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from facerestore.core.errors import ConfigError
from facerestore.diffusion.attached import disabled
from facerestore.diffusion.backbones import sd_unet
from facerestore.diffusion.components import component
from facerestore.diffusion.configs import TINY_UNET
from facerestore.stages.osediff import OSEDiff
from facerestore.stages.sdface import SDFace
from facerestore.training import Job, Trainer
from facerestore.training.adversary import Adversary
from facerestore.training.one_step import OneStepTask
from facerestore.training.optimizer import Optimizer
from facerestore.training.score import Kind, Score
from facerestore.training.stage_task import LoRA
from facerestore.training.task import Batch, only
from facerestore.training.terms import Loss
from facerestore.weights.store import WeightStore

FAST = Optimizer(learning_rate=1e-3)


@pytest.fixture
def distilled(job: Job) -> Job:
    """OSEDiff at its smallest: a generator, a discriminator and the second network of VSD."""
    task = OneStepTask.Config(
        stage=OSEDiff.Config(adapter=None),
        adapters=(LoRA(net="unet", rank=4, alpha=8, targets=("to_q", "conv1")),),
        losses=(Loss(name="mse"),),
        adversary=Adversary.Config(net="patch", weight=0.1),
        score=Score.Config(kind="vsd"),
        generator=FAST,
        discriminator=FAST,
        second=FAST,
    )
    return replace(job, task=task.tiny(), max_steps=4, save_every=2, validate_every=4)


def of_kind(job: Job, kind: Kind, **changes: Any) -> Job:
    assert isinstance(job.task, OneStepTask.Config) and job.task.score is not None
    return replace(job, task=replace(job.task, score=replace(job.task.score, kind=kind), **changes))


def started(job: Job) -> Any:
    return Trainer(job, device="cpu")


def latents(count: int = 2) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(3))


def moved(score: Score) -> None:
    """Make its second network another than its teacher."""
    with torch.no_grad():
        for name, value in score.named_parameters():
            if "lora_B" in name:
                value.fill_(0.05)


def test_without_its_adapter_it_is_the_published_unet_bit_for_bit() -> None:
    score = Score.Config().tiny().build(WeightStore())
    moved(score)
    base = component(WeightStore(), None, sd_unet, TINY_UNET)
    z, levels = latents(), torch.tensor([20, 979])

    def said(unet: Any, prompt: Tensor) -> Tensor:
        words = prompt.expand(2, -1, -1)
        return unet(z, levels, encoder_hidden_states=words, return_dict=False)[0]

    with torch.no_grad():
        told, untold = score._teacher(z, levels)
        assert torch.equal(told, said(base, score.told)) and torch.equal(untold, said(base, score.untold))
        assert not torch.equal(told, untold)
        assert (score._fake(z, levels) - told).abs().max() > 1e-3
        with disabled(score.unet):
            assert torch.equal(score._fake(z, levels), told)


@pytest.mark.parametrize("kind", ["vsd", "ta_vsd"])
def test_every_player_trains_and_none_moves_another(distilled: Job, kind: Kind) -> None:
    trainer = started(of_kind(distilled, kind))
    assert list(trainer.players) == ["generator", "discriminator", "score"]
    assert all("lora" in name for name in trainer.players["score"])
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
                assert parameter.requires_grad


def test_the_teacher_pulls_at_the_generator_alone(distilled: Job) -> None:
    """With nothing but the teacher's part, the generator's gradient is that part's, and not zero."""
    trainer = started(of_kind(distilled, "vsd", adversary=None))
    moved(trainer.task.score)
    batch = trainer.stream.batch(0)
    with only("generator", trainer.players):
        fields = trainer.task.fields(batch)
        trainer.task.score.generator(fields, batch).mean().backward()
    grads = [value.grad for value in trainer.players["generator"].values()]
    assert sum(float(grad.abs().sum()) for grad in grads if grad is not None) > 0
    assert all(value.grad is None for value in trainer.players["score"].values())


@pytest.mark.parametrize("kind", ["vsd", "ta_vsd", "csd"])
def test_the_teacher_stays_bit_for_bit_as_it_was(distilled: Job, kind: Kind) -> None:
    trainer = started(of_kind(distilled, kind))
    own = trainer.task.score
    before = {name: value.clone() for name, value in own.named_parameters() if "lora" not in name}
    z, levels = latents(), torch.tensor([1, 500])
    with torch.no_grad():
        said = own._teacher(z, levels)
    for _ in range(2):
        assert all(value == value for value in trainer.train_step().values())
    after = dict(own.named_parameters())
    assert before and all(torch.equal(after[name], value) for name, value in before.items())
    with torch.no_grad():
        assert all(torch.equal(now, then) for now, then in zip(own._teacher(z, levels), said, strict=True))


def test_csd_has_no_second_network(distilled: Job) -> None:
    trainer = started(of_kind(distilled, "csd"))
    assert list(trainer.players) == ["generator", "discriminator"]
    assert not any(value.requires_grad for value in trainer.task.score.parameters())
    assert {"generator/score", "generator/mse"} <= trainer.train_step().keys()


def test_the_second_network_learns_what_the_generator_makes() -> None:
    score = Score.Config().tiny().build(WeightStore())
    batch = Batch(hq=torch.zeros(2), lq=torch.zeros(2), seeds=(1, 2), made={"z_0": latents()})
    optimizer = torch.optim.AdamW([value for value in score.parameters() if value.requires_grad], 1e-2)
    losses: list[float] = []
    for _ in range(15):
        loss = score.second(batch).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]


def test_draws_follow_from_seeds_alone() -> None:
    """A face has the same loss alone and among others, and another one with another seed."""
    score = Score.Config(kind="vsd").tiny().build(WeightStore())
    moved(score)
    z, nothing = latents(3), torch.zeros(3)
    whole = Batch(hq=nothing, lq=nothing, seeds=(7, 8, 9))
    together = score.generator({"z_0": z}, whole)
    alone = score.generator({"z_0": z[1:2]}, replace(whole, seeds=(8,)))
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-6)
    other = score.generator({"z_0": z[1:2]}, replace(whole, seeds=(10,)))
    assert float((other - alone).abs()) > 1e-4


def test_two_steps_and_two_more_are_four_bit_for_bit(distilled: Job, tmp_path: Path) -> None:
    whole = started(distilled)
    losses: list[dict[str, float]] = []
    assert whole.fit(lambda report: losses.append(report.losses))
    halved = replace(distilled, output_dir=str(tmp_path / "halved"))
    assert started(replace(halved, max_steps=2)).fit()
    second = started(halved)
    assert second.step == 2
    again: list[dict[str, float]] = []
    assert second.fit(lambda report: again.append(report.losses))
    assert again == losses[2:] and "score/denoising" in again[0]
    for group, named in whole._state().tensors.items():
        other = second._state().tensors[group]
        assert named.keys() == other.keys()
        assert all(torch.equal(value, other[name]) for name, value in named.items()), group


def test_weights_are_named_and_other_latents_are_refused(distilled: Job) -> None:
    names = ("sd21-base/unet", "sd21-base/prompt-face", "sd21-base/prompt-negative")
    assert Score.Config().weights() == names and Score.Config().tiny().weights() == ()
    task = distilled.task
    assert isinstance(task, OneStepTask.Config)
    assert set(names) <= set(replace(task, score=Score.Config()).weights())
    other = replace(task, stage=SDFace.Config().tiny(), adversary=None)
    with pytest.raises(ConfigError, match="knows latents of Stable Diffusion"):
        other.build(WeightStore())
    with pytest.raises(ConfigError, match="rank and alpha"):
        Score.Config(rank=0)
