"""The parts of the cascade that parity with the original does not show."""

import pytest
import torch

from facerestore.faces import cascade
from facerestore.faces.cascade import pyramid, run_cascade, suppress
from facerestore.faces.detect import FaceDetector
from facerestore.weights.store import WeightStore


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector.load(WeightStore())


def test_suppression_keeps_the_best_of_what_overlaps() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [2, 2, 4, 4]])
    scores = torch.tensor([0.8, 0.9, 0.7, 0.99])
    assert suppress(boxes, scores, 0.5).tolist() == [3, 1, 2]
    assert suppress(boxes, scores, 0.85).tolist() == [3, 1, 0, 2]
    assert suppress(boxes, scores, 0.5, smaller=True).tolist() == [3, 2]
    assert suppress(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_the_pyramid_ends_where_a_face_fills_the_window() -> None:
    levels = pyramid(torch.zeros(1, 3, 100, 200), 24)
    assert levels[0].pixels.shape == (1, 3, 51, 101)
    assert min(levels[-1].pixels.shape[2:]) >= 12
    assert min(levels[-1].pixels.shape[2:]) * 0.709 < 13
    assert pyramid(torch.zeros(1, 3, 23, 200), 24) == []


def test_strips_change_nothing(
    detector: FaceDetector, face: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = face[:, :, :331, :] * 255
    levels = pyramid(pixels, 20)
    with torch.no_grad():
        whole = [cascade._propose_level(level, detector.pnet, scale, 0.3) for scale, level in levels]
        monkeypatch.setattr(cascade, "_STRIP_PIXELS", 5000)
        strips = [cascade._propose_level(level, detector.pnet, scale, 0.3) for scale, level in levels]
    assert sum(len(found) for found in whole) > 10
    for one, other in zip(whole, strips, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_nothing_in_nothing_out(detector: FaceDetector) -> None:
    nets = (detector.pnet, detector.rnet, detector.onet)
    pixels = torch.full((1, 3, 64, 64), 127.0)
    with torch.no_grad():
        for found in (run_cascade(pixels, [], *nets), run_cascade(pixels, pyramid(pixels, 20), *nets)):
            assert found.boxes.shape == (0, 4)
            assert found.scores.shape == (0,)
            assert found.points.shape == (0, 5, 2)
        # Thresholds that P-Net passes and R-Net never does, then O-Net never does.
        for thresholds in ((0.0, 2.0, 0.7), (0.0, 0.0, 2.0)):
            found = run_cascade(pixels, pyramid(pixels, 40), *nets, thresholds)
            assert found.points.shape == (0, 5, 2)
