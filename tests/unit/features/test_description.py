"""The independent description: what the network sees, and how far two people lie apart."""

import pytest
import torch
from torch.nn.functional import interpolate

from facerestore.core.errors import ShapeError
from facerestore.features.description import (
    SAME_PERSON_DISTANCE,
    IndependentDescriptor,
    description_distance,
)
from facerestore.nets.faceres import FaceRes
from facerestore.weights.store import WeightStore


def tiny() -> IndependentDescriptor:
    torch.manual_seed(0)
    return IndependentDescriptor(FaceRes(FaceRes.Config.tiny()))


def test_network_sees_the_head_at_224_px_in_the_units_of_its_training() -> None:
    face = torch.rand(1, 3, 512, 512)
    descriptor = tiny()
    seen: list[torch.Tensor] = []
    descriptor.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    described = descriptor(face)
    chip = interpolate(face[:, [2, 1, 0], 88:512, 47:471], (224, 224), mode="bilinear", antialias=True)
    mean = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    torch.testing.assert_close(seen[0], chip * 255 - mean, atol=1e-5, rtol=0)
    assert described.shape == (1, 64)


def test_lets_no_gradient_through() -> None:
    face = torch.rand(1, 3, 512, 512, requires_grad=True)
    assert not tiny()(face).requires_grad


@pytest.mark.parametrize("shape", [(3, 512, 512), (1, 3, 256, 256), (1, 1, 512, 512)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="512"):
        tiny()(torch.zeros(shape))


def test_shipped_weights_tell_two_people_apart(faces: torch.Tensor) -> None:
    """Three ruined pictures of Eileen Collins and three of Grace Hopper: nearer among themselves."""
    descriptor = IndependentDescriptor.load(WeightStore())
    assert not any(p.requires_grad for p in descriptor.parameters())
    described = descriptor(faces)
    alone = torch.cat([descriptor(face[None]) for face in faces])
    torch.testing.assert_close(described, alone, atol=1e-5, rtol=0)
    pairs = [(i, j) for i in range(6) for j in range(i)]
    first, second = (described[[pair[k] for pair in pairs]] for k in (0, 1))
    distances = description_distance(first, second)
    same = torch.tensor([i // 3 == j // 3 for i, j in pairs])
    assert distances[same].max() < distances[~same].min()
    assert distances[~same].min() > SAME_PERSON_DISTANCE
    assert description_distance(described, described).tolist() == [0.0] * 6
