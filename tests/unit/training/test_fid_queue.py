"""The FID proxy in a training: what it remembers, after a resume too, and whose statistics it takes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from facerestore.core.errors import ConfigError, DataError
from facerestore.data import Pictures, index_folder, measure_statistics, write_statistics
from facerestore.features.inception import FidFeatures, feature_statistics
from facerestore.losses.fid_proxy import FidProxy
from facerestore.recipes.training import face_unet
from facerestore.training import Job, Trainer
from facerestore.training.fid_queue import CAPACITY, FidQueue
from facerestore.training.optimizer import Optimizer
from facerestore.training.terms import Loss


@pytest.fixture
def real(faces: Path, tmp_path: Path) -> str:
    """Statistics of the faces by the small made network."""
    found = measure_statistics(Pictures(index_folder(faces), 64), FidFeatures.tiny())
    return str(write_statistics(tmp_path / "real.safetensors", *found))


@pytest.fixture
def compared(faces: Path, tmp_path: Path, real: str) -> Job:
    """A training of the small U-Net with the proxy beside L1."""
    job = face_unet(str(faces), str(tmp_path / "run")).tiny()
    losses = (Loss(name="l1"), Loss(name="fid_proxy", weight=0.01, statistics=real, made=True))
    task = replace(job.task, losses=losses, generator=Optimizer(learning_rate=1e-3))
    return replace(job, task=task, data=replace(job.data, held_back=0.2), max_steps=4, save_every=2)


def the_queue(trainer: Trainer) -> FidQueue:
    (queue,) = trainer.queues.values()
    return queue


def test_a_resume_remembers_what_was_seen_bit_for_bit(compared: Job, tmp_path: Path) -> None:
    whole = Trainer(compared, device="cpu")
    losses: list[dict[str, float]] = []
    assert whole.fit(lambda report: losses.append(report.losses))
    assert all(step["generator/fid_proxy"] > 0 for step in losses)
    assert int(the_queue(whole).filled) == 4 * compared.batch_size

    halved = replace(compared, output_dir=str(tmp_path / "halved"))
    assert Trainer(replace(halved, max_steps=2), device="cpu").fit()
    resumed = Trainer(halved, device="cpu")
    assert int(the_queue(resumed).filled) == 2 * compared.batch_size
    again: list[dict[str, float]] = []
    assert resumed.fit(lambda report: again.append(report.losses))
    assert again == losses[2:]
    assert torch.equal(the_queue(resumed).queue, the_queue(whole).queue)
    for name, value in resumed.players["generator"].items():
        assert torch.equal(value, whole.players["generator"][name]), name


def test_passes_of_a_step_see_one_queue_and_all_go_into_it(compared: Job) -> None:
    trainer = Trainer(replace(compared, accumulation=2), device="cpu")
    trainer.train_step()
    assert int(the_queue(trainer).filled) == 2 * compared.batch_size


def test_the_value_is_that_of_the_queue_and_the_pass() -> None:
    net = FidFeatures.tiny()
    mean, variance = torch.rand(net.width), torch.rand(net.width)
    queue = FidQueue(net, FidProxy(mean, variance))
    faces = torch.rand(3, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    for pair in faces:
        seen.append(net(pair))
        found = feature_statistics(torch.cat(seen))
        wanted = (found[0] - mean).square().sum() + (found[1] - variance).abs().sum()
        assert queue(pair).tolist() == pytest.approx([float(wanted)] * 2, rel=1e-5)
        queue.push(lambda own: own)
    assert torch.equal(queue.queue[CAPACITY - 6 :], torch.cat(seen))


def test_what_is_joined_goes_in_and_the_oldest_out() -> None:
    """As with two processes: each sees its own faces, and both queues hold all."""
    net = FidFeatures.tiny()
    queues = [FidQueue(net, FidProxy(torch.zeros(net.width), torch.zeros(net.width))) for _ in range(2)]
    faces = torch.rand(2, 2, 3, 32, 32)
    for queue, own in zip(queues, faces, strict=True):
        queue.queue.fill_(7.0)
        queue.filled.fill_(CAPACITY)
        queue(own)
    everything = net(faces.flatten(0, 1))
    for queue in queues:
        queue.push(lambda own: everything)
        assert torch.equal(queue.queue[-4:], everything)
        assert bool((queue.queue[:-4] == 7).all())
        assert int(queue.filled) == CAPACITY


def test_statistics_are_asked_for_and_have_to_fit(compared: Job, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"facerestore data statistics"):
        Loss(name="fid_proxy")
    with pytest.raises(ConfigError, match="to no other"):
        Loss(name="l1", statistics="real.safetensors")
    assert Loss(name="fid_proxy", statistics="real.safetensors").weights() == ("fid-inception",)
    assert Loss(name="fid_proxy", statistics="real.safetensors").tiny().statistics is None
    with pytest.raises(DataError, match="nowhere"):
        FidQueue.of(FidFeatures.tiny(), tmp_path / "nowhere.safetensors")
    other = write_statistics(tmp_path / "other.safetensors", torch.zeros(2048), torch.ones(2048))
    with pytest.raises(ConfigError, match=r"of 2048 numbers.*by 128"):
        FidQueue.of(FidFeatures.tiny(), other)
