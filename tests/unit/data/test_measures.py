"""What is measured of faces, and what limits leave out."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facerestore.core.errors import ConfigError, EmptyDataset
from facerestore.data import (
    Index,
    Limits,
    Measures,
    index_folder,
    measure,
    measure_all,
    within,
    write_measures,
)
from facerestore.data.measures import pose_of
from facerestore.faces.detect import FaceDetector
from facerestore.faces.templates import FFHQ_512
from facerestore.imaging.read import read_image
from facerestore.weights.store import WeightStore

PORTRAIT = Path(__file__).parents[2] / "data" / "faces" / "grace_hopper.jpg"


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector.load(WeightStore())


def turned(yaw_deg: float, pitch_deg: float) -> np.ndarray:
    """The template as a plane with the nose before it, turned and seen from far away."""
    flat = FFHQ_512.double().numpy()
    length = flat[3:, 1].mean() - flat[:2, 1].mean()
    centred = np.c_[flat - [256, flat[:2, 1].mean() + length / 2], np.zeros(5)]
    eyes = flat[1, 0] - flat[0, 0]
    centred[2, 2] = eyes / 2
    yaw, pitch = math.radians(yaw_deg), math.radians(pitch_deg)
    about_y = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
    about_x = np.array(
        [[1, 0, 0], [0, math.cos(pitch), math.sin(pitch)], [0, -math.sin(pitch), math.cos(pitch)]]
    )
    return (centred @ about_y.T @ about_x.T)[:, :2] + 256


@pytest.mark.parametrize("angle", [-50, -20, 0, 10, 35, 60])
def test_pose_is_that_of_a_face_turned_by_so_much(angle: float) -> None:
    yaw, pitch = pose_of(turned(angle, 0))
    assert yaw == pytest.approx(angle, abs=1.5)
    assert pitch == pytest.approx(0, abs=1.5)
    yaw, pitch = pose_of(turned(0, angle))
    assert pitch == pytest.approx(angle, abs=1.5)
    assert yaw == pytest.approx(0, abs=1.5)


def test_pose_does_not_depend_on_place_size_and_roll() -> None:
    points = turned(30, -10)
    angle = math.radians(40)
    roll = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    assert pose_of((points * 0.2) @ roll.T + [900, -30]) == pytest.approx(pose_of(points), abs=1e-6)


def test_a_real_face(detector: FaceDetector) -> None:
    photo = read_image(PORTRAIT)
    seen = measure(photo, detector)
    assert seen.faces == 1
    assert seen.confidence > 0.95
    assert 240 < seen.face_px < 340  # eyes 73 px apart, 126 in the template of 512 px
    assert 1 < seen.blur_px < 4
    assert abs(seen.roll_deg) < 6 and abs(seen.pitch_deg) < 20 and abs(seen.yaw_deg) < 20
    mirrored = measure(read_image(photo.pixels[:, ::-1].copy()), detector)
    assert mirrored.yaw_deg == pytest.approx(-seen.yaw_deg, abs=1.5)
    assert mirrored.face_px == pytest.approx(seen.face_px, rel=0.02)


def test_a_large_photo_is_measured_in_its_own_pixels(detector: FaceDetector) -> None:
    with Image.open(PORTRAIT) as picture:
        small = measure(read_image(picture.convert("RGB")), detector)
        factor = 1500 / max(picture.size)
        large = picture.convert("RGB").resize([round(side * factor) for side in picture.size])
    seen = measure(read_image(large), detector)
    assert seen.face_px == pytest.approx(small.face_px * factor, rel=0.05)
    assert seen.blur_px > small.blur_px - 0.5


def test_measures_are_remembered_by_content_and_written_as_a_table(
    tmp_path: Path, draw, detector: FaceDetector, monkeypatch
) -> None:
    (tmp_path / "in").mkdir()
    with Image.open(PORTRAIT) as picture:
        picture.resize([side // 2 for side in picture.size]).save(tmp_path / "in" / "face.png")
    draw(tmp_path / "in" / "nobody.png", 1)
    index = index_folder(tmp_path / "in")
    first = measure_all(index.entries, detector, record=tmp_path / "faces.json")
    assert (first["face.png"].faces, first["nobody.png"].faces) == (1, 0)
    assert math.isnan(first["nobody.png"].blur_px)
    monkeypatch.setattr(detector, "detect", lambda image: pytest.fail("was measured before"))
    again = measure_all(index.entries, detector, record=tmp_path / "faces.json")
    assert again["face.png"] == first["face.png"]
    with write_measures(tmp_path / "faces.csv", first).open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["key"] for row in rows] == ["face.png", "nobody.png"]
    assert float(rows[0]["face_px"]) == pytest.approx(first["face.png"].face_px, rel=1e-3)
    left = within(index, first, Limits())
    assert [(item.key, item.reason) for item in left.removed] == [("nobody.png", "no face")]


GOOD = Measures(
    faces=1, confidence=1, face_px=600, blur_px=1.6, grain=0.01, yaw_deg=5, pitch_deg=-5, roll_deg=1
)
STRICT = Limits(
    min_face_px=512,
    max_blur_px=2,
    max_grain=0.02,
    max_yaw_deg=30,
    max_pitch_deg=25,
    max_roll_deg=10,
    one_face=True,
)


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"faces": 2}, "several faces", "2 were found"),
        ({"face_px": 300}, "small face", "300 px, at least 512 asked for"),
        ({"blur_px": 3.25}, "blurred", "3.25 px of edge, at most 2 asked for"),
        ({"grain": 0.03}, "noisy", "0.03 of grain, at most 0.02 asked for"),
        ({"yaw_deg": -44}, "turned aside", "44 degrees, at most 30 asked for"),
        ({"pitch_deg": 26}, "turned up or down", "26 degrees, at most 25 asked for"),
        ({"roll_deg": -90}, "askew", "90 degrees, at most 10 asked for"),
    ],
)
def test_each_limit_leaves_out_and_says_why(tmp_path: Path, draw, change, reason: str, detail: str) -> None:
    for number in range(2):
        draw(tmp_path / f"{number}.png", number)
    index = index_folder(tmp_path)
    measured = {"0.png": GOOD, "1.png": replace(GOOD, **change)}
    left = within(index, measured, STRICT)
    assert [entry.key for entry in left.entries] == ["0.png"]
    assert left.removed == (("1.png", reason, detail),)
    assert len(within(index, measured, Limits())) == 2
    with pytest.raises(EmptyDataset, match=reason):
        within(Index(index.entries[1:]), measured, STRICT)
    with pytest.raises(ConfigError, match=r"1\.png was not measured"):
        within(index, {"0.png": GOOD}, STRICT)


def test_limits_without_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_yaw_deg is -3"):
        Limits(max_yaw_deg=-3)
