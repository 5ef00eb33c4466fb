"""Eyes and mouths: GFPGAN's numbers, ours from five points, files of both, and boxes that follow."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facerestore.core.errors import ConfigError, DataError, OutputError, WeightsError
from facerestore.data import (
    Augment,
    Components,
    Pictures,
    WithBoxes,
    augmented,
    components_of_landmarks,
    find_components,
    index_folder,
    read_components,
    read_landmarks,
    stacked,
    with_parts_only,
    write_components,
)
from facerestore.data.components import boxes_of, parts_of_5, parts_of_68
from facerestore.faces.detect import FaceDetector
from facerestore.faces.templates import FFHQ_512
from facerestore.weights.store import WeightStore

# x and y of the points 36 to 67 of a face, made up: eyes 52 and 48 px wide, mouth 100 px wide and 30 high.
EYES = [(166, 240), (184, 230), (200, 230), (218, 242), (200, 248), (184, 248)]
OTHER = [(295, 242), (311, 231), (327, 231), (343, 240), (327, 249), (311, 249)]
MOUTH = [(206 + 5 * k, 356 + (k * 37) % 31) for k in range(19)] + [(306, 370)]
POINTS = np.array([(0.0, 0.0)] * 36 + EYES + OTHER + MOUTH)


def test_parts_of_68_points_are_those_of_gfpgans_script() -> None:
    """Computed by hand: means, and half of the longer side of the bounding box."""
    parts = parts_of_68(POINTS, 512)
    assert parts["left_eye"] == pytest.approx((192.0, 1438 / 6, 26.0))
    assert parts["right_eye"] == pytest.approx((1914 / 6, 1442 / 6, 24.0))
    assert parts["mouth"][2] == pytest.approx(50.0)
    assert parts["mouth"][0] == pytest.approx(np.mean([x for x, _ in MOUTH]))
    small = parts_of_68(POINTS / 4, 128)
    assert small["left_eye"] == pytest.approx([value / 4 for value in parts["left_eye"]])
    assert parts_of_68(POINTS / 4, 512)["left_eye"][2] == 16  # never smaller
    with pytest.raises(DataError, match="68 points"):
        parts_of_68(POINTS[:5], 512)


def test_parts_of_five_points_lie_where_those_of_68_do() -> None:
    parts = parts_of_5(FFHQ_512.numpy(), 512)
    assert parts["left_eye"] == pytest.approx((192.98, 239.95, 25.2), abs=0.1)
    assert parts["right_eye"] == pytest.approx((318.9, 240.19, 25.2), abs=0.1)
    assert parts["mouth"] == pytest.approx((257.2, 371.3, 55.9), abs=0.1)


def official(path: Path, faces: dict) -> Path:
    """A file as GFPGAN's script writes it: numbers of numpy in lists."""
    content = {
        name: {part: [np.float64(v) for v in values] for part, values in parts.items()}
        for name, parts in faces.items()
    }
    torch.save(content, path)
    return path


def test_the_official_file_is_read_without_executing_anything(tmp_path: Path) -> None:
    parts = parts_of_68(POINTS, 512)
    path = official(tmp_path / "FFHQ_eye_mouth_landmarks_512.pth", {"00000000": parts, "00000042": parts})
    read = read_components(path)
    assert read.size_px == 512
    assert read.faces["00000042"] == parts  # exactly
    for key in ("00000042", "00042.png", "images1024x1024/00000/00042.png", "00042"):
        assert read.parts(key) == parts
    assert read.parts("00043.png") is None


def test_files_that_are_no_component_files_are_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"00000000": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="nothing of it was executed"):
        read_components(tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    for content, message in (
        ({}, "expected left_eye"),
        ({"a": {"left_eye": [1.0, 2.0, 3.0]}}, "a has not"),
        ({"a": {part: [1.0, 2.0] for part in ("left_eye", "right_eye", "mouth")}}, "three finite numbers"),
        ({"a": {part: [1.0, 2.0, float("nan")] for part in ("left_eye", "right_eye", "mouth")}}, "finite"),
    ):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(DataError, match=message):
            read_components(tmp_path / "other.pth")
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(DataError, match="no component file"):
        read_components(tmp_path / "other.json")


def test_what_is_written_is_read_again_and_gfpgan_can_use_it(tmp_path: Path) -> None:
    parts = parts_of_68(POINTS, 512)
    components = Components(512, {"a.png": parts, "c.png": parts})
    again = read_components(write_components(tmp_path / "c.json", components))
    assert again.size_px == 512
    assert again.faces["c.png"]["mouth"] == pytest.approx(parts["mouth"], abs=1e-3)
    path = write_components(tmp_path / "c.pth", components, ["a.png", "b.png", "c.png"])
    assert list(read_components(path).faces) == ["00000000", "00000002"]
    theirs = torch.load(path, weights_only=False)["00000002"]["left_eye"]
    centre, half = theirs[0:2], theirs[2]
    half *= 1.4  # as GFPGAN's data set does, number by number
    assert np.hstack((centre - half + 1, centre + half)) == pytest.approx(
        [192 - 36.4 + 1, 239.667 - 36.4 + 1, 228.4, 276.067], abs=1e-3
    )
    with pytest.raises(ConfigError, match=r"\.json or"):
        write_components(tmp_path / "c.pth", components)
    with pytest.raises(OutputError, match="no folder"):
        write_components(tmp_path / "nowhere" / "c.json", components)


def test_points_come_from_tables_in_both_orders(tmp_path: Path) -> None:
    row = ",".join(f"{value:g}" for value in POINTS.flatten())
    (tmp_path / "plain.csv").write_text(f"a.png,{row}\nb.png,{row}\n")
    header = ",".join(["name", *(f"x_{k}" for k in range(68)), *(f"y_{k}" for k in range(68))])
    apart = ",".join(f"{value:g}" for value in POINTS.T.flatten())
    (tmp_path / "openface.csv").write_text(f"{header}\na.png, {apart}\n")
    for name in ("plain.csv", "openface.csv"):
        landmarks = read_landmarks(tmp_path / name)
        assert np.array_equal(landmarks["a.png"], POINTS)
    components = components_of_landmarks(read_landmarks(tmp_path / "plain.csv"), 1024)
    assert components.faces["b.png"]["mouth"] == pytest.approx(
        [value / 2 for value in parts_of_68(POINTS, 1024)["mouth"]]
    )
    (tmp_path / "short.csv").write_text("name,x0,y0\na.png,1,2\n")
    with pytest.raises(DataError, match="line 2: a name and 136 numbers"):
        read_landmarks(tmp_path / "short.csv")
    (tmp_path / "none.csv").write_text("")
    with pytest.raises(DataError, match="holds no points"):
        read_landmarks(tmp_path / "none.csv")


def test_the_detector_finds_the_parts_of_real_faces_and_boxes_go_with_them(
    aligned: Path, tmp_path: Path, draw
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("hopper_x8.png", "astronaut_x8.png"):
        with Image.open(aligned / name) as picture:
            picture.save(tmp_path / "in" / name)
    draw(tmp_path / "in" / "nobody.png", 1, 512, 512)
    index = index_folder(tmp_path / "in")
    components, removed = find_components(Pictures(index), FaceDetector.load(WeightStore()))
    assert [item.key for item in removed] == ["nobody.png"]
    for parts in components.faces.values():
        for part, place in (("left_eye", FFHQ_512[0]), ("right_eye", FFHQ_512[1])):
            assert np.hypot(*(np.array(parts[part][:2]) - place.numpy())) < 20
    with pytest.raises(DataError, match=r"1 entries are not known \(nobody.png\)"):
        WithBoxes(Pictures(index, 256), components)
    known = with_parts_only(index, components)
    assert known.counts() == {"no parts": 1}
    dataset = WithBoxes(Pictures(known, 256), components, mouth=1.3)
    batch = stacked([dataset[0], dataset[1]])
    assert batch["boxes"]["mouth"].shape == (2, 4)
    x, y, half = components.faces["astronaut_x8.png"]["mouth"]
    expected = torch.tensor([x - 1.3 * half, y - 1.3 * half, x + 1.3 * half, y + 1.3 * half]) / 2
    torch.testing.assert_close(batch["boxes"]["mouth"][0], expected)


def test_the_boxes_of_a_mirrored_face_are_the_mirrored_boxes() -> None:
    """As GFPGAN mirrors: x becomes size - x, and the eyes change places."""
    parts = parts_of_68(POINTS, 512)
    mirrored = {
        "left_eye": (512 - parts["right_eye"][0], *parts["right_eye"][1:]),
        "right_eye": (512 - parts["left_eye"][0], *parts["left_eye"][1:]),
        "mouth": (512 - parts["mouth"][0], *parts["mouth"][1:]),
    }
    sample = {"key": "a", "hq": torch.rand(3, 512, 512), "boxes": boxes_of(parts, 1)}
    turned = augmented(sample, Augment(flip=1), 0)
    for part, box in boxes_of(mirrored, 1).items():
        torch.testing.assert_close(turned["boxes"][part], box)
        torch.testing.assert_close(turned["boxes"][part][2:] - turned["boxes"][part][:2], box[2:] - box[:2])
