"""The FID proxy: statistics of a batch and a queue against fixed ones."""

import pytest
import torch

from facerestore.core.errors import ShapeError
from facerestore.features.inception import FidFeatures, feature_statistics
from facerestore.losses.fid_proxy import FidProxy, pushed
from facerestore.losses.objective import Objective, Term

EMPTY = torch.zeros(0, 6)


@pytest.fixture
def real() -> torch.Tensor:
    return torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7) + 3


def test_zero_for_the_same_statistics_and_positive_else(real):
    proxy = FidProxy(*feature_statistics(real))
    assert proxy(real, EMPTY).tolist() == pytest.approx([0.0] * 200, abs=1e-6)
    assert proxy(real[:100], real[100:]).tolist() == pytest.approx([0.0] * 100, abs=1e-4)
    shifted = [proxy(real + shift, EMPTY)[0].item() for shift in (0.1, 0.5, 1.0)]
    spread = [proxy((real - 3) * factor + 3, EMPTY)[0].item() for factor in (1.1, 1.5, 2.0)]
    assert 0 < shifted[0] < shifted[1] < shifted[2] and 0 < spread[0] < spread[1] < spread[2]


def test_values_are_those_of_the_equation():
    proxy = FidProxy(torch.tensor([1.0, 0.0]), torch.tensor([2.0, 1.0]))
    features, queue = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])
    # The mean is (2, 3), the variance (2, 2).
    found = proxy(features, queue)
    assert found.shape == (1,) and found.item() == pytest.approx(1 + 9 + 0 + 1)


def test_the_queue_is_a_constant_and_the_order_does_not_count(real):
    proxy = FidProxy(*feature_statistics(real))
    features, queue = (real[:4] + 1).requires_grad_(), (real[50:90] * 1.1).requires_grad_()
    loss = proxy(features, queue)
    assert loss.shape == (4,) and (loss == loss[0]).all()
    torch.testing.assert_close(proxy(features.flip(0), queue.flip(0)), loss)
    loss.mean().backward()
    assert queue.grad is None and features.grad is not None and features.grad.abs().min() > 0


def test_gradients(real):
    proxy = FidProxy(*(each.double() for each in feature_statistics(real)))
    features = real[:3].double().requires_grad_()
    queue = real[10:14].double()
    assert torch.autograd.gradcheck(lambda each: proxy(each, queue), (features,))


def test_descending_it_brings_the_statistics_near(real):
    """With a queue, batches of four find the mean of two hundred."""
    proxy = FidProxy(*feature_statistics(real))
    shift = torch.zeros(6, requires_grad=True)
    optimiser, queue = torch.optim.Adam([shift], lr=0.1), EMPTY
    source = real - 5
    for step in range(300):
        features = source[torch.arange(4 * step, 4 * step + 4) % 200] + shift
        optimiser.zero_grad()
        proxy(features, queue).mean().backward()
        optimiser.step()
        queue = pushed(queue, features, 40)
    assert (shift - 5).abs().max() < 2 and queue.shape == (40, 6)


def test_a_queue_keeps_the_newest():
    queue = EMPTY[:, :1]
    for step in range(4):
        features = torch.tensor([[2.0 * step], [2.0 * step + 1]], requires_grad=True)
        queue = pushed(queue, features, 5)
    assert queue.flatten().tolist() == [3.0, 4.0, 5.0, 6.0, 7.0] and not queue.requires_grad


def test_one_description_has_no_variance_and_none_no_statistics():
    mean, variance = feature_statistics(torch.tensor([[1.0, 2.0]]))
    assert mean.tolist() == [1.0, 2.0] and variance.tolist() == [0.0, 0.0]
    with pytest.raises(ShapeError, match="one or more"):
        feature_statistics(EMPTY)


def test_shapes_are_typed(real):
    with pytest.raises(ShapeError, match="mean and a variance"):
        FidProxy(torch.zeros(3), torch.zeros(4))
    proxy = FidProxy(*feature_statistics(real))
    for features, queue in ((real[:, :5], EMPTY), (real, EMPTY[:, :5]), (real[0], EMPTY)):
        with pytest.raises(ShapeError, match=r"descriptions \(N,6\)"):
            proxy(features, queue)


def test_it_is_a_term_of_fields():
    features = FidFeatures.tiny()
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    described = features(images)
    proxy = FidProxy(torch.zeros(features.width), torch.zeros(features.width))
    objective = Objective([Term("fid", proxy, 0.05, pred="described", target="described_before")])
    loss, logs = objective({"described": described, "described_before": described.detach() + 1})
    loss.backward()
    assert images.grad is not None and images.grad.abs().max() > 0
    assert loss.item() == pytest.approx(0.05 * logs["fid"].item())
