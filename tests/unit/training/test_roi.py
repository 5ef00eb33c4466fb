"""Eyes and mouths in a training: their boxes, what is asked of them, and a player of their own."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from facerestore.core.errors import ConfigError, EmptyDataset
from facerestore.data import Augment, Components, write_components
from facerestore.losses.discriminators.roi import component_crops
from facerestore.recipes.training import face_unet
from facerestore.training import Job, Trainer
from facerestore.training.roi import PARTS, RoiAdversary
from facerestore.training.stream import Stream
from facerestore.training.task import Batch, only
from facerestore.weights.store import WeightStore

PLACES = {"left_eye": (190.0, 240.0, 40.0), "right_eye": (322.0, 240.0, 40.0), "mouth": (256.0, 370.0, 60.0)}
ALL_TERMS = RoiAdversary.Config(triplet=0.1, symmetry=0.1, made=True)


def components(folder: Path, faces: Path, *without: str) -> str:
    names = [path.name for path in sorted(faces.iterdir()) if path.name not in without]
    return str(write_components(folder / "parts.json", Components(512, dict.fromkeys(names, PLACES))))


@pytest.fixture
def eyed(job: Job, faces: Path, tmp_path: Path) -> Job:
    """The small training with three players and the places of eyes and mouths."""
    data = replace(job.data, components=components(tmp_path, faces))
    return replace(job, task=replace(job.task, roi=ALL_TERMS), data=data, max_steps=4, save_every=2)


def a_batch() -> tuple[dict[str, Any], Batch]:
    """Two faces of 128 px as their task tells of them, and the batch they came from."""
    generator = torch.Generator().manual_seed(0)
    hq, lq, image = torch.rand(3, 2, 3, 128, 128, generator=generator)
    boxes = {"left_eye": [30, 40, 55, 65], "right_eye": [72, 41, 96, 65], "mouth": [40, 80, 80, 115]}
    fields = {name: torch.tensor([box] * 2, dtype=torch.float32) for name, box in boxes.items()}
    batch = Batch(hq=hq, lq=lq, seeds=(0, 1), boxes=fields)
    return {**fields, "image": image.requires_grad_(), "hq": hq, "lq": lq}, batch


@pytest.mark.parametrize("term", ["roi/adversary", "roi/style", "roi/triplet", "roi/symmetry"])
def test_gradients_reach_the_generator_inside_the_boxes_alone(term: str) -> None:
    fields, batch = a_batch()
    said = {name: each for name, _, each in ALL_TERMS.build(WeightStore()).say(fields, batch)}
    assert said[term].shape == (2,)
    said[term].sum().backward()
    slope = fields["image"].grad.abs().sum(1)
    for part in PARTS:
        left, top, right, bottom = fields[part][0].int().tolist()
        inside = slope[:, top : bottom + 1, left : right + 1]  # bilinear: up to the pixel behind the edge
        assert bool(inside.any()) == (part != "mouth" or term != "roi/symmetry"), part
        inside.zero_()
    assert not slope.any()


def test_no_player_moves_another_and_the_judges_reuse_what_was_cut(
    eyed: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(eyed, device="cpu")
    assert list(trainer.players) == ["generator", "discriminator", "roi"]
    batch = trainer.stream.batch(0)
    for name in trainer.players:
        if name == "roi":
            monkeypatch.setattr(
                "facerestore.training.roi.component_crops", lambda *_: pytest.fail("cut again")
            )
        with only(name, trainer.players):
            loss, terms = trainer.task.loss(name, batch)
            loss.backward()
        for other, owned in trainer.players.items():
            assert any(value.grad is not None for value in owned.values()) == (other == name), (name, other)
            for value in owned.values():
                value.grad = None
        assert all(bool(value.isfinite()) for value in terms.values())


def test_it_resumes_bit_for_bit_and_the_judges_move(eyed: Job, tmp_path: Path) -> None:
    def weights(trainer: Trainer) -> dict[str, Tensor]:
        return {
            f"{name}/{key}": value.detach().clone()
            for name, owned in trainer.players.items()
            for key, value in owned.items()
        }

    whole = Trainer(eyed, device="cpu")
    before = weights(whole)
    losses: list[dict[str, float]] = []
    assert whole.fit(lambda report: losses.append(report.losses))
    assert {name for name in losses[0] if "roi" in name} == {
        *(f"generator/roi/{term}" for term in ("adversary", "style", "triplet", "symmetry")),
        "roi/adversary",
    }
    changed = {key.partition("/")[0] for key, value in weights(whole).items() if not value.equal(before[key])}
    assert changed == {"generator", "discriminator", "roi"}
    halved = replace(eyed, output_dir=str(tmp_path / "halved"))
    assert Trainer(replace(halved, max_steps=2), device="cpu").fit()
    resumed = Trainer(halved, device="cpu")
    assert resumed.step == 2
    again: list[dict[str, float]] = []
    assert resumed.fit(lambda report: again.append(report.losses))
    assert again == losses[2:]
    assert all(value.equal(weights(whole)[key]) for key, value in weights(resumed).items())


def test_a_network_of_pictures_has_them_too(faces: Path, tmp_path: Path) -> None:
    job = face_unet(str(faces), str(tmp_path / "run"))
    job = replace(job, task=replace(job.task, roi=RoiAdversary.Config())).tiny()
    job = replace(job, data=replace(job.data, held_back=0.0, components=components(tmp_path, faces)))
    losses = Trainer(job, device="cpu").train_step()
    assert {"generator/roi/adversary", "generator/roi/style", "roi/adversary"} < losses.keys()


def test_without_a_component_file_nothing_is_begun(eyed: Job) -> None:
    with pytest.raises(ConfigError, match=r"data\.components names no file.*facerestore data components"):
        Trainer(replace(eyed, data=replace(eyed.data, components="")), device="cpu")
    assert not Path(eyed.output_dir).exists()


def test_faces_that_the_file_lacks_are_left_out_and_counted(eyed: Job, faces: Path, tmp_path: Path) -> None:
    job = replace(eyed, data=replace(eyed.data, held_back=0.0))
    components(tmp_path, faces, "0.png", "2m.png")
    trainer = Trainer(job, device="cpu")
    assert "0.png" not in [entry.key for entry in trainer.stream.index.entries]
    assert trainer.stream.index.counts() == {"grey": 2, "no parts": 2}
    assert trainer.fit()
    run = json.loads((trainer.folder / "run.json").read_text())
    assert run["data"]["left_out"] == {"grey": 2, "no parts": 2}
    write_components(job.data.components, Components(512, {"somebody else.png": PLACES}))
    with pytest.raises(EmptyDataset, match=r"parts\.json.*no parts"):
        Trainer(job, device="cpu")


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_crops_follow_the_face_when_it_is_mirrored(flip: float, tmp_path: Path) -> None:
    """Red is the left eye of the file, blue the right one; of the mirrored face it is the other way round."""
    (tmp_path / "faces").mkdir()
    picture = Image.new("RGB", (512, 512), (90, 120, 90))
    for colour, part in (((255, 0, 0), "left_eye"), ((0, 0, 255), "right_eye"), ((255, 255, 0), "mouth")):
        x, y, half = PLACES[part]
        picture.paste(colour, tuple(round(edge) for edge in (x - half, y - half, x + half, y + half)))
    picture.save(tmp_path / "faces" / "a.png")
    config = Stream.Config(
        faces=str(tmp_path / "faces"),
        components=components(tmp_path, tmp_path / "faces"),
        size_px=128,
        augment=Augment(flip=flip),
        held_back=0.0,
        workers=0,
    )
    batch = Stream(config, seed=0, batch_size=1, device=torch.device("cpu")).batch(0)
    crops = component_crops(batch.hq, batch.boxes)
    middles = {part: crop[0, :, crop.shape[2] // 2, crop.shape[3] // 2] for part, crop in crops.items()}
    red, blue = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])
    left, right = (red, blue) if flip == 0 else (blue, red)
    for part, colour in (
        ("left_eye", left),
        ("right_eye", right),
        ("mouth", red + torch.tensor([0, 1.0, 0])),
    ):
        assert torch.allclose(middles[part], colour, atol=0.02), part


def test_terms_of_weight_zero_are_left_out_and_negative_ones_refused() -> None:
    fields, batch = a_batch()
    plain = RoiAdversary.Config(style=0, made=True).build(WeightStore())
    assert [name for name, _, _ in plain.say(fields, batch)] == ["roi/adversary"]
    assert plain.own(batch)[1].shape == (2,)
    with pytest.raises(ConfigError, match="below 0"):
        RoiAdversary.Config(triplet=-0.1)
