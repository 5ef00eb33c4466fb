"""The CLIP loss."""

import pytest
import torch

from facerestore.losses.clip import ClipLoss


def test_rules(rules):
    rules.hold(ClipLoss.tiny(), 40, atol=1e-5)


def test_it_is_one_minus_the_cosine():
    loss = ClipLoss.tiny()
    pred, target = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    cosine = torch.cosine_similarity(loss.clip(pred), loss.clip(target))
    torch.testing.assert_close(loss(pred, target), 1 - cosine, atol=1e-6, rtol=0)
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_gradients():
    loss = ClipLoss.tiny().double()
    pred, target = (torch.rand(1, 3, 32, 32, dtype=torch.float64) for _ in range(2))
    direction = torch.randn_like(pred)
    leaf = pred.clone().requires_grad_()
    loss(leaf, target).sum().backward()
    step = 1e-5
    rise = (loss(pred + step * direction, target) - loss(pred - step * direction, target)) / (2 * step)
    assert rise.item() == pytest.approx((leaf.grad * direction).sum().item(), rel=1e-4)
