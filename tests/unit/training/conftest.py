"""A small real training: OSDFace at its smallest, an adapter, a discriminator, eight faces."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from facerestore.stages.osdface import OSDFace
from facerestore.training import Job
from facerestore.training.adversary import Adversary
from facerestore.training.one_step import OneStepTask
from facerestore.training.optimizer import Optimizer
from facerestore.training.stage_task import LoRA
from facerestore.training.stream import Stream
from facerestore.training.terms import Loss

REPO = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten different pictures of faces, 160 and 192 px."""
    folder = tmp_path_factory.mktemp("faces")
    for index, path in enumerate(sorted((REPO / "examples" / "faces").iterdir())[:5]):
        with Image.open(path) as picture:
            small = picture.convert("RGB").resize((160, 160), Image.Resampling.LANCZOS)
        small.save(folder / f"{index}.png")
        ImageOps.mirror(small.resize((192, 192))).save(folder / f"{index}m.png")
    return folder


@pytest.fixture
def job(faces: Path, tmp_path: Path) -> Job:
    """Two players, an average, a validation."""
    task = OneStepTask.Config(
        stage=OSDFace.Config(),
        adapters=(LoRA(net="unet", rank=16, alpha=16, targets=("to_q", "to_v", "conv1")),),
        whole=("projector",),
        losses=(Loss(name="l1"),),
        adversary=Adversary.Config(net="patch", weight=0.1),
        generator=Optimizer(learning_rate=1e-3),
        discriminator=Optimizer(learning_rate=1e-3),
    )
    data = Stream.Config(faces=str(faces), held_back=0.2)
    whole = Job(name="test", task=task, data=data, output_dir=str(tmp_path / "run"), max_steps=1)
    return replace(whole.tiny(), max_steps=6, save_every=3, validate_every=3)
