"""The cascade against what facenet-pytorch 2.6.0 finds (see record_mtcnn.py)."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facerestore.faces.cascade import Found, pyramid, run_cascade
from facerestore.faces.detect import FaceDetector
from facerestore.weights.store import WeightStore

RECORD = json.loads((Path(__file__).parent / "data" / "mtcnn.json").read_text(encoding="utf-8"))
NAMES = tuple(RECORD["pictures"])


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    pytest.importorskip("skimage", reason="one of the two portraits comes with scikit-image")
    return runpy.run_path(str(Path(__file__).with_name("record_mtcnn.py")))


@pytest.fixture(scope="module")
def pictures(script: dict[str, Any]) -> dict[str, np.ndarray]:
    return script["pictures"]()


@pytest.fixture(scope="module")
def cascade() -> Callable[[np.ndarray], Found]:
    detector = FaceDetector.load(WeightStore())

    def run(picture: np.ndarray) -> Found:
        pixels = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            return run_cascade(pixels, pyramid(pixels, 20), detector.pnet, detector.rnet, detector.onet)

    return run


def test_there_are_enough_pictures_with_and_without_faces() -> None:
    counts = [len(answer["boxes"]) for answer in RECORD["pictures"].values()]
    assert RECORD["package"] == "facenet-pytorch 2.6.0"
    assert len(counts) == 15
    assert sum(count > 0 for count in counts) >= 10
    assert max(counts) == 6
    assert min(counts) == 0


@pytest.mark.parametrize("name", NAMES)
def test_same_boxes_scores_and_points(
    name: str,
    script: dict[str, Any],
    pictures: dict[str, np.ndarray],
    cascade: Callable[[np.ndarray], Found],
) -> None:
    recorded = RECORD["pictures"][name]
    if script["digest"](pictures[name]) != recorded["sha256"]:
        pytest.skip("this JPEG decoder or random generator gives other pixels than those that were recorded")
    found = cascade(pictures[name])
    assert len(found.scores) == len(recorded["scores"])
    if recorded["scores"]:
        np.testing.assert_allclose(found.boxes.numpy(), recorded["boxes"], atol=0.01, rtol=0)
        np.testing.assert_allclose(found.points.numpy(), recorded["points"], atol=0.01, rtol=0)
        np.testing.assert_allclose(found.scores.numpy(), recorded["scores"], atol=1e-4, rtol=0)
