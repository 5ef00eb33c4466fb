"""The networks of MTCNN: shapes, strict loading, and the shortcuts against what they stand for."""

import pytest
import torch
from torch import nn

from facerestore.core.errors import KeyMismatch
from facerestore.nets.mtcnn import ONet, PNet, RNet, _halve
from facerestore.weights.load import load_into
from facerestore.weights.store import WeightStore


@pytest.mark.parametrize("net", [PNet(), RNet(), ONet()], ids=["pnet", "rnet", "onet"])
def test_shipped_weights_fit_strictly(net: nn.Module) -> None:
    prefix = f"{type(net).__name__.lower()}."
    state = {
        key.removeprefix(prefix): tensor
        for key, tensor in WeightStore().load("mtcnn").items()
        if key.startswith(prefix)
    }
    load_into(net, state, "mtcnn")
    assert all(torch.equal(tensor, state[key]) for key, tensor in net.state_dict().items())
    state.pop("conv1.weight")
    with pytest.raises(KeyMismatch, match=r"conv1\.weight"):
        load_into(net, state, "mtcnn")


@pytest.mark.parametrize(("height", "width"), [(12, 12), (13, 12), (40, 31), (41, 30)])
def test_pnet_has_one_window_every_two_pixels(height: int, width: int) -> None:
    scores, offsets = PNet()(torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)))
    rows, columns = (height - 9) // 2, (width - 9) // 2  # the last may hang out by a pixel
    assert scores.shape == (2, rows, columns)
    assert offsets.shape == (2, 4, rows, columns)
    assert scores.min() >= 0
    assert scores.max() <= 1


def test_rnet_and_onet_answer_for_every_candidate() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, offsets = RNet()(torch.rand(3, 3, 24, 24, generator=generator))
    assert scores.shape == (3,)
    assert offsets.shape == (3, 4)
    scores, offsets, points = ONet()(torch.rand(3, 3, 48, 48, generator=generator))
    assert scores.shape == (3,)
    assert offsets.shape == (3, 4)
    assert points.shape == (3, 5, 2)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 6), (5, 6), (4, 7), (9, 9)])
def test_halving_is_max_pooling(height: int, width: int) -> None:
    features = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    assert torch.equal(_halve(features), nn.MaxPool2d(2, 2, ceil_mode=True)(features))


def test_onet_passes_gradients() -> None:
    pixels = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(2)).requires_grad_()
    ONet()(pixels)[0].sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
