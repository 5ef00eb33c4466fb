"""What generator and discriminator minimise, from logits alone."""

import math
from typing import Any

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from facerestore.core.errors import ConfigError, ShapeError
from facerestore.losses.adversarial import Kind, balance, discriminator_loss, generator_loss, r1_penalty

KINDS: tuple[Kind, ...] = ("hinge", "non_saturating", "soft_label")


def levels(count: int = 3, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [2 * torch.randn(count, 1, s, s + 1, generator=generator, dtype=dtype) for s in (1, 2, 4)]


@pytest.mark.parametrize(
    ("kind", "pred", "real", "fake"),
    [
        ("hinge", -3.0, 0.0, 4.0),
        ("non_saturating", math.log1p(math.exp(-3)), math.log1p(math.exp(-3)), 3 + math.log1p(math.exp(-3))),
        ("soft_label", 0.6 + math.log1p(math.exp(-3)), 0.6 + math.log1p(math.exp(-3)), 3.0485874),
    ],
)
def test_values_at_a_logit_of_three(kind: Kind, pred: float, real: float, fake: float) -> None:
    logits = [torch.full((1, 1, 2, 2), 3.0)]
    assert generator_loss(logits, kind).tolist() == pytest.approx([pred])
    assert discriminator_loss(logits, logits, kind).tolist() == pytest.approx([real + fake])


def test_soft_labels_are_cross_entropies_with_four_fifths() -> None:
    (logits,) = levels()[1:2]
    label = torch.full_like(logits, 0.8)
    expected = binary_cross_entropy_with_logits(logits, label, reduction="none").mean((1, 2, 3))
    torch.testing.assert_close(generator_loss([logits], "soft_label"), expected)
    best = torch.tensor([[math.log(4.0)]]).requires_grad_()  # where the sigmoid is 0.8
    generator_loss([best], "soft_label").sum().backward()
    assert best.grad is not None and best.grad.abs().item() < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_averaged_and_levels_added_for_each_picture_alone(kind: Kind) -> None:
    real, fake = levels(), [-level for level in levels()]
    assert generator_loss(fake, kind).shape == (3,)
    by_level = torch.stack([discriminator_loss([r], [f], kind) for r, f in zip(real, fake, strict=True)])
    torch.testing.assert_close(discriminator_loss(real, fake, kind), by_level.sum(0))
    alone = [generator_loss([level[i : i + 1] for level in fake], kind) for i in range(3)]
    torch.testing.assert_close(generator_loss(fake, kind), torch.cat(alone))
    wide = [level.repeat(1, 1, 2, 3) for level in fake]  # larger maps count no more
    torch.testing.assert_close(generator_loss(wide, kind), generator_loss(fake, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: Kind) -> None:
    real, fake = levels(2, torch.float64)[:2]
    real, fake = real.requires_grad_(), fake.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: generator_loss([x], kind), real)
    assert torch.autograd.gradcheck(lambda x, y: discriminator_loss([x], [y], kind), (real, fake))


@pytest.mark.parametrize("kind", KINDS)
def test_players_pull_logits_of_fakes_apart(kind: Kind) -> None:
    fake = torch.zeros(2, 1, 2, 2, requires_grad=True)
    (up,) = torch.autograd.grad(generator_loss([fake], kind).sum(), fake)
    (down,) = torch.autograd.grad(discriminator_loss([torch.zeros_like(fake)], [fake], kind).sum(), fake)
    assert bool((up < 0).all()) and bool((down > 0).all())


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_widened_before_it_is_added(kind: Kind) -> None:
    logits = [level.bfloat16() for level in levels()]
    wide = [level.float() for level in logits]
    assert torch.equal(generator_loss(logits, kind), generator_loss(wide, kind))
    assert generator_loss(logits, kind).dtype == torch.float32


def test_r1_is_the_squared_slope_and_can_be_differentiated() -> None:
    weight = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    images = torch.rand(2, 3, 1, 1, requires_grad=True)
    scale = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    logits = (images * weight.view(1, 3, 1, 1) * scale).sum(1, keepdim=True)
    penalty = r1_penalty([logits], [images])
    assert penalty.tolist() == pytest.approx([5.25, 9 * 5.25])
    penalty.sum().backward()
    torch.testing.assert_close(weight.grad, 20 * weight.detach())


def test_r1_of_several_inputs_is_added_and_inputs_must_require_gradients() -> None:
    first, second = (torch.rand(2, 1, 2, 2, requires_grad=True) for _ in range(2))
    logits = [first * 2, second * 3]  # each is averaged over its four places
    assert r1_penalty(logits, [first, second]).tolist() == pytest.approx([4 / 4 + 9 / 4] * 2)
    with pytest.raises(ConfigError, match="requires_grad_"):
        r1_penalty(logits, [first.detach()])


def test_what_is_no_loss_or_does_not_fit_is_refused() -> None:
    unknown: Any = "wasserstein"
    with pytest.raises(ConfigError, match="hinge, non_saturating or soft_label"):
        generator_loss(levels(), unknown)
    with pytest.raises(ShapeError, match="one level or more"):
        generator_loss([], "hinge")
    with pytest.raises(ShapeError, match="equally many"):
        generator_loss([torch.zeros(2, 1), torch.zeros(3, 1)], "hinge")
    with pytest.raises(ShapeError, match="as many fakes"):
        discriminator_loss(levels(3), levels(2), "hinge")


def test_balance_is_the_ratio_of_slopes_at_a_layer() -> None:
    last = torch.tensor([3.0, 4.0], requires_grad=True)
    fidelity, against = last.square().sum(), (0.5 * last).sum()  # slopes (6,8) and (1/2,1/2)
    share = balance(fidelity, against, last)
    assert share.item() == pytest.approx(10 / (0.5**0.5 + 1e-4), rel=1e-6)
    assert not share.requires_grad
    assert balance(fidelity, 0 * against, last).item() == 1e4  # as 10 / 1e-4 is cut off
    (fidelity + share * against).backward()  # the graph is still there
    assert last.grad is not None
