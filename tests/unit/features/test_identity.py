"""Descriptors of aligned faces, their distance and similarity."""

import pytest
import torch
from torch.nn.functional import interpolate

from facerestore.core.errors import ShapeError
from facerestore.features.identity import (
    CHIP_COLUMNS,
    CHIP_ROWS,
    SAME_PERSON_DISTANCE,
    FaceDescriptor,
    identity_distance,
    identity_similarity,
)
from facerestore.nets.dlib_resnet import DlibResNet
from facerestore.weights.store import WeightStore


def tiny() -> FaceDescriptor:
    torch.manual_seed(0)
    return FaceDescriptor(DlibResNet(DlibResNet.Config.tiny()))


def test_only_the_chip_counts_and_gradients_reach_it() -> None:
    faces = torch.rand(2, 3, 512, 512, requires_grad=True)
    tiny()(faces).square().sum().backward()
    assert faces.grad is not None
    chip = faces.grad[:, :, CHIP_ROWS, CHIP_COLUMNS]
    assert chip.shape == (2, 3, 360, 360)
    assert chip.abs().sum() > 0
    assert torch.isclose(chip.abs().sum(), faces.grad.abs().sum())


def test_network_sees_the_chip_at_150_px_in_the_units_of_dlib() -> None:
    face = torch.rand(1, 3, 512, 512)
    descriptor = tiny()
    seen: list[torch.Tensor] = []
    descriptor.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        descriptor(face)
        descriptor(torch.ones_like(face))
    chip = interpolate(face[:, :, 127:487, 79:439], (150, 150), mode="bilinear", antialias=True)
    mean = torch.tensor([122.782, 117.001, 104.298]).view(1, 3, 1, 1)
    torch.testing.assert_close(seen[0], (chip * 255 - mean) / 256, atol=1e-6, rtol=0)
    torch.testing.assert_close(seen[1], ((255 - mean) / 256).expand(1, 3, 150, 150), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(3, 512, 512), (1, 3, 256, 256), (1, 1, 512, 512)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="512"):
        tiny()(torch.zeros(shape))


def test_shipped_weights_tell_two_people_apart(faces: torch.Tensor) -> None:
    """Three ruined pictures of Eileen Collins and three of Grace Hopper: nearer among themselves."""
    descriptor = FaceDescriptor.load(WeightStore())
    assert not any(p.requires_grad for p in descriptor.parameters())
    with torch.no_grad():
        described = descriptor(faces)
    distances = torch.cdist(described, described)
    assert len(distances) == 6
    same = torch.stack((distances[:3, :3], distances[3:, 3:]))
    assert same.max() < SAME_PERSON_DISTANCE
    assert distances[:3, 3:].min() > same.max() + 0.1


def test_distance_and_its_gradient() -> None:
    a = torch.zeros(2, 128, requires_grad=True)
    b = torch.zeros(2, 128)
    b[1, :2] = torch.tensor([0.3, 0.4])
    distance = identity_distance(a, b)
    assert distance.tolist() == pytest.approx([0.0, 0.5])
    distance.sum().backward()
    assert a.grad is not None
    assert a.grad[0].abs().sum() == 0
    assert a.grad[1].norm().item() == pytest.approx(1.0)
    with pytest.raises(ShapeError):
        identity_distance(a, b[:1])


def test_similarity_is_a_half_at_the_threshold() -> None:
    distances = torch.tensor([0.0, 0.3, SAME_PERSON_DISTANCE, 1.2, 1.5])
    assert identity_similarity(distances).tolist() == pytest.approx([1.0, 0.75, 0.5, 0.0, 0.0])
