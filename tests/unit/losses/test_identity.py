"""Losses of identity: nothing between equals, more the more of another face is blended in; gradients."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from facerestore.core.errors import ConfigError, ShapeError
from facerestore.features.adaface import AdaFace
from facerestore.features.arcface import ArcFace, Embedder, GreyArcFace
from facerestore.features.identity import FaceDescriptor
from facerestore.losses.identity import DescriptorLoss, IdentityFloor, IdentityLoss
from facerestore.nets.dlib_resnet import DlibResNet
from facerestore.weights.store import WeightStore

KINDS = ("arcface", "grey", "adaface", "descriptor")


def made(kind: str) -> nn.Module:
    if kind == "descriptor":
        torch.manual_seed(0)
        return DescriptorLoss(FaceDescriptor(DlibResNet(DlibResNet.Config.tiny())).requires_grad_(False))
    embedders: dict[str, type[Embedder]] = {"arcface": ArcFace, "grey": GreyArcFace, "adaface": AdaFace}
    return IdentityLoss(embedders[kind].tiny())  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def pair(faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A face of each of two people: (1,3,512,512) twice."""
    return faces[:1], faces[3:4]


@pytest.mark.parametrize("kind", KINDS)
def test_is_zero_for_equals_and_grows_with_what_is_blended_in(
    kind: str, pair: tuple[torch.Tensor, torch.Tensor]
) -> None:
    loss, (one, other) = made(kind), pair
    with torch.no_grad():
        values = [loss(one.lerp(other, part), one).item() for part in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert values[0] == 0
    assert all(a < b for a, b in pairwise(values)), values


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_singles_and_gradients_reach_pred_alone(kind: str, faces: torch.Tensor) -> None:
    loss = made(kind)
    pred, target = faces[:2].clone().requires_grad_(), faces[3:5].clone().requires_grad_()
    values = loss(pred, target)
    assert values.shape == (2,) and values.dtype == torch.float32
    values.sum().backward()
    assert pred.grad is not None and (pred.grad.abs().flatten(1).sum(1) > 0).all()
    assert target.grad is None
    assert not any(p.requires_grad for p in loss.parameters())
    with torch.no_grad():
        alone = torch.cat([loss(pred[i : i + 1], target[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(values.detach(), alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_between_equals_the_gradient_is_zero(kind: str, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    pred = pair[0].clone().requires_grad_()
    made(kind)(pred, pair[0]).sum().backward()
    assert pred.grad is not None and pred.grad.eq(0).all()


def test_is_the_embedding_loss_of_torch(faces: torch.Tensor) -> None:
    embed = ArcFace.tiny()
    with torch.no_grad():
        ours = IdentityLoss(embed)(faces[:3], faces[3:])
        reference = nn.CosineEmbeddingLoss(reduction="none")
        theirs = reference(embed(faces[:3]), embed(faces[3:]), torch.ones(3))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_gradient_is_the_slope(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Along the gradient, by small steps to both sides, in float64."""
    loss, (one, other) = made("arcface").double(), (face.double() for face in pair)
    pred = one.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(pred, other).sum(), pred)
    step = 1e-4 * gradient / gradient.norm()
    with torch.no_grad():
        rise = loss(one + step, other) - loss(one - step, other)
    assert rise.item() == pytest.approx(2e-4 * gradient.norm().item(), rel=1e-3)


def test_floor_asks_nothing_above_and_the_rest_below(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    embed, (one, other) = ArcFace.tiny(), pair
    with torch.no_grad():
        cosine = 1 - IdentityLoss(embed)(one, other).item()
    floors = {cosine - 0.01: 0.0, cosine + (1 - cosine) / 2: (1 - cosine) / 2}
    for floor, expected in floors.items():
        pred = one.clone().requires_grad_()
        value = IdentityFloor(embed, floor)(pred, other)
        assert value.item() == pytest.approx(expected, abs=1e-6)
        value.sum().backward()
        assert pred.grad is not None and bool(pred.grad.abs().sum() > 0) == (expected > 0)
    for floor in (-1.0, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="floor"):
            IdentityFloor(embed, floor)


def test_shipped_network_is_a_loss_offline(faces: torch.Tensor) -> None:
    """Below 0.6 within a person, above between two; the gradient is there."""
    loss = DescriptorLoss(FaceDescriptor.load(WeightStore()))
    pred = faces[:2].clone().requires_grad_()
    values = loss(pred, faces[[1, 3]])
    assert values[0] < 0.6 < values[1]
    values.sum().backward()
    assert pred.grad is not None and pred.grad.abs().sum() > 0


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ShapeError):
        made("arcface")(torch.zeros(1, 3, 512, 512), torch.zeros(2, 3, 512, 512))
    with pytest.raises(ShapeError):
        made("grey")(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))
