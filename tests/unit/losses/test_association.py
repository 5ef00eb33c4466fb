"""The association of degraded and clean faces."""

import math

import pytest
import torch

from facerestore.core.errors import ShapeError
from facerestore.losses.association import AssociationLoss


def features(count: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, 6, 2, 3, generator=torch.Generator().manual_seed(0), dtype=dtype)


def test_places_that_cannot_be_told_apart_cost_the_logarithm_of_their_number() -> None:
    same = torch.ones(2, 6, 2, 3)
    assert AssociationLoss()(same, same).tolist() == pytest.approx([math.log(12)] * 2, rel=1e-6)


def test_orthogonal_places_by_hand() -> None:
    unit = torch.eye(6).view(1, 6, 2, 3)
    loss = AssociationLoss()
    loss.logit_scale.data.fill_(2)
    expected = math.log(1 + 5 * math.exp(-math.exp(2)))
    assert loss(unit, unit).item() == pytest.approx(expected, rel=1e-4)
    assert loss(7 * unit, unit).item() == pytest.approx(expected, rel=1e-4)  # lengths count nothing


def test_it_falls_as_the_branches_agree_and_does_not_depend_on_which_is_which() -> None:
    loss, clean = AssociationLoss(), features()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    values = [loss(clean + share * noise, clean).mean().item() for share in (0.0, 0.5, 1.0, 3.0)]
    assert values == sorted(values) and values[0] < 0.1 < 1 < values[-1]
    torch.testing.assert_close(loss(clean + noise, clean), loss(clean, clean + noise))


def test_each_picture_has_its_own_places() -> None:
    clean = features()
    degraded = torch.cat([clean[:1], -clean[1:]])
    first, second = AssociationLoss()(degraded, clean)
    assert first < 0.1 < 10 < second


def test_gradients_reach_both_branches_and_the_scale() -> None:
    loss = AssociationLoss().double()
    pred, target = (features(1, torch.float64) + i for i in range(2))
    assert torch.autograd.gradcheck(loss, (pred.requires_grad_(), target.requires_grad_()))
    loss(pred, target).sum().backward()
    assert loss.logit_scale.grad is not None and loss.logit_scale.grad.abs() > 1e-6
    assert loss.logit_scale.exp().item() == pytest.approx(1 / 0.07)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="features of one shape"):
        AssociationLoss()(features(), features()[:1])


def test_autocast_changes_nothing() -> None:
    loss, pred, target = AssociationLoss(), features(), features().flip(0)
    exact = loss(pred, target)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(pred, target), exact)
