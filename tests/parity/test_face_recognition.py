"""The recognition network against what face-api computes (see data/face_recognition.md)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from facerestore.features.identity import DIVISOR, MEAN_RGB, FaceDescriptor, identity_distance
from facerestore.weights.store import WeightStore

RECORDED = Path(__file__).parent / "data" / "face_recognition.safetensors"


@pytest.fixture(scope="module")
def descriptor() -> FaceDescriptor:
    return FaceDescriptor.load(WeightStore())


def test_descriptors_equal_the_original(descriptor: FaceDescriptor) -> None:
    """All five chips, normalised as face-api does it: 1e-4 abs was asked for, 1e-6 holds."""
    recorded = load_file(RECORDED)
    pixels = recorded["chips"].permute(0, 3, 1, 2).float()
    with torch.no_grad():
        actual = descriptor.net((pixels - descriptor.mean) / 255)
    assert len(actual) == 5
    torch.testing.assert_close(actual, recorded["descriptors"], atol=1e-6, rtol=0)


def test_the_divisor_of_dlib_moves_distances_by_little(descriptor: FaceDescriptor) -> None:
    """What the docstring of `DIVISOR` says: 0.001 per descriptor, 0.0002 per distance (rounded)."""
    recorded = load_file(RECORDED)
    pixels = recorded["chips"].permute(0, 3, 1, 2).float()
    with torch.no_grad():
        ours = descriptor.net((pixels - torch.tensor(MEAN_RGB).view(1, 3, 1, 1)) / DIVISOR)
    theirs = recorded["descriptors"]
    moved = identity_distance(ours, theirs)
    assert 1e-4 < moved.max() < 0.0015
    assert (torch.cdist(ours, ours) - torch.cdist(theirs, theirs)).abs().max() < 0.0003
