"""The detector on real pictures: all faces, no others, upright or not, whole or cut, small or many."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facerestore.core.errors import ConfigError, KeyMismatch, RangeError, ShapeError
from facerestore.faces import detect
from facerestore.faces.detect import Face, FaceDetector
from facerestore.weights.store import WeightStore

PORTRAIT = Path(__file__).parents[2] / "data" / "faces" / "grace_hopper.jpg"


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector.load(WeightStore())


@pytest.fixture(scope="module")
def hopper() -> Image.Image:
    return Image.open(PORTRAIT).convert("RGB")


def _tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255


def test_one_face_where_one_is(detector: FaceDetector, hopper: Image.Image) -> None:
    (face,) = detector.detect(_tensor(hopper))
    x0, y0, x1, y1 = face.box
    assert 120 < x0 < 160 and 70 < y0 < 110  # looked at: brow, chin and cheeks
    assert 270 < x1 < 300 and 250 < y1 < 285
    seen = np.array([(175, 151), (248, 147), (207, 193), (187, 226), (244, 223)])  # marked by eye
    assert np.abs(face.landmarks - seen).max() < 9
    assert face.landmarks.dtype == np.float32
    assert 0.95 < face.confidence <= 1
    assert abs(face.roll_deg) < 6


@pytest.mark.parametrize(
    ("name", "rolls"),
    [
        ("astronaut_grey.jpg", [4]),
        ("astronaut_thumbnail.jpg", [4]),
        ("hopper_faded.jpg", [-3]),
        ("hopper_nearly_sharp.jpg", [-3]),
        ("hopper_askew.jpg", [-155]),
        ("wall_of_five.jpg", [-15, -3, -3, 4, 5]),
    ],
)
def test_every_face_of_the_examples_and_no_other(
    detector: FaceDetector, photos: Path, name: str, rolls: list[float]
) -> None:
    found = detector.detect(_tensor(Image.open(photos / name).convert("RGB")))
    assert sorted(face.roll_deg for face in found) == pytest.approx(rolls, abs=3)
    areas = [face.area for face in found]
    assert areas == sorted(areas, reverse=True)


def test_ruined_faces_are_found(detector: FaceDetector, faces: torch.Tensor) -> None:
    for crop in faces:
        (face,) = detector.detect(crop[None])
        assert np.abs(face.landmarks[:2] - [(192.98, 239.95), (318.9, 240.19)]).max() < 20
        assert abs(face.roll_deg) < 6


@pytest.mark.parametrize("name", ["coffee", "page", "brick", "chelsea", "rocket"])
def test_no_face_where_there_is_none(detector: FaceDetector, name: str) -> None:
    data = pytest.importorskip("skimage.data", reason="pictures without faces come with scikit-image")
    picture = Image.fromarray(getattr(data, name)()).convert("RGB")
    assert detector.detect(_tensor(picture)) == []


def test_fifty_faces(detector: FaceDetector, hopper: Image.Image) -> None:
    """Five rows of ten, each turned and scaled a little differently, on grey."""
    sheet = Image.new("RGB", (1500, 800), (128, 128, 128))
    centres = []
    for index in range(50):
        face = hopper.crop((100, 40, 310, 300)).resize((100 + index % 4 * 8, 124 + index % 4 * 8))
        turned = face.rotate((index * 37) % 41 - 20, expand=True, fillcolor=(128, 128, 128))
        left, top = index % 10 * 150, index // 10 * 160
        sheet.paste(turned, (left, top))
        centres.append((left + turned.width / 2, top + turned.height / 2))
    found = detector.detect(_tensor(sheet))
    assert len(found) == 50
    middles = np.array([face.landmarks.mean(axis=0) for face in found])
    distances = np.linalg.norm(middles[:, None] - np.array(centres)[None], axis=2).min(axis=0)
    assert distances.max() < 30


def test_small_faces_of_a_large_picture(detector: FaceDetector, hopper: Image.Image) -> None:
    """Below the size that is searched at every roll: found where the larger faces say what is upright."""
    sheet = Image.new("RGB", (1100, 1000), (90, 110, 130))
    sheet.paste(hopper, (30, 30))
    small = hopper.resize((82, 96))  # a face of about 38 px, below 1/24 of 1000
    places = [(700 + 120 * i, 150 * j + 50) for i in range(3) for j in range(5)]
    for place in places:
        sheet.paste(small, place)
    for quarter in (0, 1):
        picture = torch.rot90(_tensor(sheet), -quarter, (2, 3))
        found = detector.detect(picture)
        assert len(found) == 1 + len(places)
        assert all(abs(face.roll_deg - 90 * quarter) < 8 for face in found)


def test_smaller_than_asked_for_is_not_searched(hopper: Image.Image) -> None:
    picture = _tensor(hopper.resize((82, 96)))
    store = WeightStore()
    assert len(FaceDetector.load(store).detect(picture)) == 1
    assert FaceDetector.load(store, FaceDetector.Config(min_face_px=75)).detect(picture) == []


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_a_face_half_outside_does_not_crash(detector: FaceDetector, hopper: Image.Image, side: str) -> None:
    box = {
        "left": (210, 0, 410, 480),
        "right": (0, 0, 212, 480),
        "top": (0, 170, 410, 480),
        "bottom": (0, 0, 410, 190),
    }[side]
    picture = _tensor(hopper.crop(box))
    for face in detector.detect(picture):
        assert np.isfinite(face.landmarks).all()
        assert face.box[0] < picture.shape[3] and face.box[1] < picture.shape[2]
        assert face.box[2] > 0 and face.box[3] > 0


def test_a_cut_face_is_still_found(detector: FaceDetector, hopper: Image.Image) -> None:
    (face,) = detector.detect(_tensor(hopper.crop((165, 0, 410, 480))))
    assert face.box[0] < 0 or face.box[0] == pytest.approx(0, abs=25)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (23, 23), (24, 24), (30, 400)])
def test_tiny_pictures_have_no_face(detector: FaceDetector, size: tuple[int, int]) -> None:
    assert detector.detect(torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))) == []


def test_an_eye_is_no_second_face() -> None:
    face = Face((0, 0, 100, 120), np.zeros((5, 2), np.float32), 0.95, 0.0)
    eye = Face((20, 30, 45, 55), np.zeros((5, 2), np.float32), 0.99, 0.0)
    neighbour = Face((90, 0, 190, 120), np.zeros((5, 2), np.float32), 0.9, 0.0)
    assert detect._without_nested([eye, neighbour, face]) == [face, neighbour]


def test_points_that_are_no_face_are_implausible() -> None:
    template = detect.FFHQ_512.double()
    points = torch.stack(
        [
            template,
            template[:, [1, 0]],  # mirrored about the diagonal
            template.mean(dim=0) + (template - template.mean(dim=0)) * 0.3,  # collapsed
            template[[0, 1, 2, 3, 3]],  # both corners of the mouth in one point
            template + torch.tensor([[0, 0], [0, 0], [160, 0], [0, 0], [0, 0]]),  # the nose far off
        ]
    )
    scales = torch.full((5,), 48 / 360, dtype=torch.float64)
    assert detect._plausible(points, scales).tolist() == [True, False, False, False, False]


def test_only_a_valid_picture_is_taken(detector: FaceDetector) -> None:
    with pytest.raises(ShapeError):
        detector.detect(torch.rand(2, 3, 64, 64))
    with pytest.raises(ShapeError):
        detector.detect(torch.rand(1, 4, 64, 64))
    with pytest.raises(RangeError):
        detector.detect(torch.rand(1, 3, 64, 64) * 255)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="min_face_px"):
        FaceDetector.Config(min_face_px=11)
    with pytest.raises(ConfigError, match="threshold"):
        FaceDetector.Config(threshold=1)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = WeightStore().load("mtcnn")
    state.pop("rnet.dense4.bias")
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(KeyMismatch, match=r"dense4\.bias"):
        FaceDetector.load(WeightStore(paths={"mtcnn": tmp_path / "other.safetensors"}))
