"""The description network against what Human's model computes (see data/face_description.md)."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from facerestore.features.description import IndependentDescriptor
from facerestore.weights.store import WeightStore

DATA = Path(__file__).parent / "data"


def test_descriptions_equal_the_original() -> None:
    """All five chips, in the units in which Human gives them to the network: 1e-5 abs."""
    chips = load_file(DATA / "face_recognition.safetensors")["chips"]
    places = torch.arange(224) * 150 // 224
    pixels = chips[:, places][:, :, places].permute(0, 3, 1, 2).float()
    with torch.no_grad():
        actual = IndependentDescriptor.load(WeightStore()).net(pixels)
    expected = load_file(DATA / "face_description.safetensors")["descriptions"]
    assert expected.shape == (5, 1024) and expected.std() > 0.1
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
