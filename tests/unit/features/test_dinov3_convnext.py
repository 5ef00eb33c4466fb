"""DINOv3's ConvNeXt as a frozen eye, and the distance Dv3D."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate

from facerestore.core.errors import KeyMismatch, ShapeError, WeightsNotFound
from facerestore.features.dinov3_convnext import DinoV3ConvNeXt
from facerestore.features.dv3d import Dv3D, distance
from facerestore.nets.convnext import ConvNeXt
from facerestore.weights.store import WeightStore


def images(count: int = 2, side: int = 48) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_it_is_frozen_whatever_it_is_part_of_and_gradients_pass() -> None:
    eye = DinoV3ConvNeXt.tiny()
    nn.Sequential(eye).train()
    assert not eye.training and not any(tensor.requires_grad for tensor in eye.parameters())
    pictures = images().requires_grad_()
    eye(pictures)[2].square().sum().backward()
    assert pictures.grad is not None and bool((pictures.grad.abs().sum((1, 2, 3)) > 0).all())


def test_it_sees_the_colours_of_imagenet_as_zero() -> None:
    eye = DinoV3ConvNeXt.tiny()
    seen: list[torch.Tensor] = []
    eye.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for color in (mean, mean + deviation):
        eye(color[None, :, None, None].expand(1, 3, 16, 16))
    assert seen[0].abs().max() < 1e-6
    torch.testing.assert_close(seen[1], torch.ones(1, 3, 16, 16), atol=1e-5, rtol=0)


def test_equal_pictures_are_at_no_distance_and_others_are_symmetric() -> None:
    dv3d, first = Dv3D.tiny(), images()
    second = first.flip(0)
    assert dv3d(first, first).abs().max() < 1e-6
    torch.testing.assert_close(dv3d(first, second), dv3d(second, first))
    assert bool((dv3d(first, second) > 0.01).all())


def test_growing_blur_is_a_growing_distance(face: torch.Tensor) -> None:
    dv3d = Dv3D.tiny()
    small = avg_pool2d(face, 4)
    blurred = [
        interpolate(avg_pool2d(small, side), scale_factor=side, mode="bilinear") for side in (2, 4, 8, 16)
    ]
    distances = torch.cat([dv3d(each, small) for each in blurred])
    assert bool((distances.diff() > 0).all()) and distances[0] > 0.005


def test_distance_of_a_batch_is_that_of_each_pair() -> None:
    dv3d, first = Dv3D.tiny(), images(3)
    second = first.roll(1, 0)
    apart = torch.cat([dv3d(first[i : i + 1], second[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(dv3d(first, second), apart, atol=1e-6, rtol=0)


def test_distance_by_hand() -> None:
    """Two channels: one of equal maps, one whose means are 0 and whose structure is opposite."""
    x = torch.tensor([[[[1.0, 3.0]], [[-1.0, 1.0]]]])
    y = torch.tensor([[[[1.0, 3.0]], [[1.0, -1.0]]]])
    # texture 1 and e/e = 1; structure 1 and -1: (2 + 0) / (2 * 2) is alike
    assert distance([x], [y]).item() == pytest.approx(0.5, abs=1e-5)


def test_gradient_of_the_distance() -> None:
    dv3d = Dv3D.tiny().double()
    target = torch.rand(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pred = target.flip(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: dv3d(x, target), pred, fast_mode=True)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 15, 32)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="16 px"):
        DinoV3ConvNeXt.tiny()(torch.zeros(shape))
    with pytest.raises(ShapeError, match="one shape"):
        Dv3D.tiny()(torch.zeros(1, 3, 32, 32), torch.zeros(shape))


def test_weights_are_read_by_their_size_and_others_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match="gated"):
        Dv3D.load(WeightStore())
    path = tmp_path / "any.safetensors"
    store = WeightStore(paths={"dinov3-convnext-tiny": path})
    with torch.device("meta"):
        keys = ConvNeXt(ConvNeXt.Config.of("tiny")).state_dict()
    state = {key: torch.full(tensor.shape, 0.5) for key, tensor in keys.items()}
    save_file(state | {"norm.weight": torch.ones(768)}, path)
    eye = DinoV3ConvNeXt.load(store, "tiny")
    assert all(bool((tensor == 0.5).all()) for tensor in eye.net.state_dict().values())
    assert not any(tensor.requires_grad for tensor in eye.parameters())
    save_file(state | {"stages.0.0.gamma": torch.ones(95)}, path)
    with pytest.raises(KeyMismatch, match="1 misshapen"):
        DinoV3ConvNeXt.load(store, "tiny")
