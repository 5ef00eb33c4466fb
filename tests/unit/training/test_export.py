"""What is exported is what was trained: loaded by a stage of this library, and by plain diffusers."""

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from facerestore.core.state import RestorationState
from facerestore.diffusion import backbones
from facerestore.diffusion.attached import DIFFUSERS_FILE
from facerestore.diffusion.configs import TINY_UNET
from facerestore.recipes.training import JOBS, get_job
from facerestore.stages.osdface import OSDFace
from facerestore.training import Job, Trainer
from facerestore.training.roi import RoiAdversary
from facerestore.training.terms import Loss
from facerestore.weights.seeded import fill_seeded
from facerestore.weights.store import WeightStore


@pytest.fixture
def trained(job: Job) -> Trainer:
    trainer = Trainer(replace(job, max_steps=2), device="cpu")
    trainer.fit()
    return trainer


def test_a_stage_with_the_exported_files_restores_as_the_trained_one(trained: Trainer) -> None:
    folder = trained.folder / "export"
    trained.export()
    paths: dict[str, str | Path] = {
        "own/unet": folder / "unet",
        "osdface/projector": folder / "projector.safetensors",
    }
    config = replace(OSDFace.Config().tiny(), adapters=("own/unet",), projector="osdface/projector")
    stage = config.build(WeightStore(paths=paths))
    lq = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loaded = stage(RestorationState.start(lq, (0, 1))).image
        untrained = OSDFace.Config().tiny().build(WeightStore())(RestorationState.start(lq, (0, 1))).image
    wanted = trained.restore(lq, (0, 1))
    assert (wanted - untrained).abs().max() > 1e-4  # it has learned something
    assert torch.allclose(loaded, wanted, atol=1e-5)


def test_plain_diffusers_loads_the_exported_adapter(trained: Trainer) -> None:
    trained.export()
    net: Any = backbones.sd_unet(TINY_UNET)
    fill_seeded(net)
    net.load_lora_adapter(str(trained.folder / "export"), prefix="unet", weight_name=DIFFUSERS_FILE)
    z, prompt = torch.randn(1, 4, 8, 8), torch.randn(1, 77, TINY_UNET["cross_attention_dim"])
    steps = torch.full((1,), 399)
    with trained._averaged(), torch.no_grad():
        wanted = trained.task.stage.unet(z, steps, encoder_hidden_states=prompt, return_dict=False)[0]
        ours = net(z, steps, encoder_hidden_states=prompt, return_dict=False)[0]
    assert torch.allclose(ours, wanted, atol=1e-5)


def test_the_card_says_what_it_belongs_to_and_what_it_was_trained_on(trained: Trainer) -> None:
    *files, card = trained.export()
    text = card.read_text()
    for path in files:
        assert f"`{path.relative_to(card.parent)}`" in text
    assert trained.job.fingerprint() in text
    assert "faces (hash " in text
    assert "under: not stated" in text


def test_the_card_says_what_is_our_reading(trained: Trainer) -> None:
    task = replace(trained.job.task, losses=(Loss(name="l1"), Loss(name="gradient")))
    task = replace(task, roi=RoiAdversary.Config(triplet=0.1))
    assert task.notes() == (
        "gradient: its numbers are ours",
        "roi/triplet: the formula is our reading of a name",
    )
    trained.record.job = replace(trained.job, task=task, notes="Published are the losses.")
    text = trained.export()[-1].read_text()
    assert "## Notes\n\nPublished are the losses.\n* gradient: its numbers are ours\n* roi/triplet" in text
    assert json.loads(text.partition("```json")[2].partition("```")[0])["notes"] == list(task.notes())


@pytest.mark.parametrize("name", JOBS)
def test_the_notes_of_a_job_are_what_its_docstring_says(name: str) -> None:
    job, said = get_job(name), inspect.getdoc(JOBS[name]) or ""
    assert job.notes
    assert said.endswith(job.notes)
    assert "\n" not in said.removesuffix(job.notes).strip()


def test_an_adapter_of_the_encoder_is_written_as_a_folder(faces: Path, tmp_path: Path) -> None:
    job = replace(get_job("omgsr-s", str(faces), str(tmp_path / "run")).tiny(), max_steps=1)
    job = replace(job, data=replace(job.data, held_back=0.2))
    trainer = Trainer(
        replace(job, task=replace(job.task, losses=job.task.losses[:1], adversary=None)), device="cpu"
    )
    trainer.train_step()
    names = {str(path.relative_to(tmp_path / "run" / "export")) for path in trainer.export()}
    assert {"codec_vae_encoder/adapter_model.safetensors", "unet/adapter_config.json"} < names
