"""What judges pictures: what it returns, what is trained, and that pictures do not see each other."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from facerestore.core.errors import ConfigError, ShapeError
from facerestore.losses.adversarial import discriminator_loss, generator_loss, r1_penalty
from facerestore.losses.discriminators.dino import DinoV2Discriminator
from facerestore.losses.discriminators.dinov3_convnext import DinoV3Discriminator, DinoV3Heads
from facerestore.losses.discriminators.patch import PatchDiscriminator
from facerestore.losses.discriminators.roi import ComponentDiscriminator

# Name: how one is made, side of its pictures, and the maps of logits.
KINDS: dict[str, tuple[Callable[[], Any], int, list[tuple[int, ...]]]] = {
    "dino": (DinoV2Discriminator.tiny, 56, [(1, 4, 4)] * 4),
    "dinov3": (DinoV3Discriminator.tiny, 512, [(1, 1, 1)] * 3),
    "patch": (PatchDiscriminator.tiny, 32, [(1, 6, 6)]),
    "component": (ComponentDiscriminator.tiny, 24, [(1, 6, 6)]),
}
FROZEN = ("dino", "dinov3")


def make(kind: str) -> Any:
    torch.manual_seed(0)
    net = KINDS[kind][0]()
    if kind == "dinov3":  # its spectral normalisation begins anywhere
        for _ in range(3):
            net.train()(pictures(kind, 1))
    return net


def pictures(kind: str, count: int = 2) -> torch.Tensor:
    side = KINDS[kind][1]
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_become_lists_of_maps_and_each_is_judged_alone(kind: str) -> None:
    net = make(kind).eval()
    with torch.no_grad():
        logits = net(pictures(kind))
        alone = [net(pictures(kind)[i : i + 1]) for i in range(2)]
    assert [tuple(level.shape[1:]) for level in logits] == KINDS[kind][2]
    for level, *others in zip(logits, *alone, strict=True):
        torch.testing.assert_close(level, torch.cat(others), atol=1e-5, rtol=0)
        assert not torch.allclose(level[0], level[1], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_described_once_serves_both_players(kind: str) -> None:
    net = make(kind).train()
    pred = pictures(kind, 1).requires_grad_()
    features = net.features(pred)
    generator_loss(net.score(features), "hinge").sum().backward()
    assert pred.grad is not None and bool(pred.grad.abs().sum() > 0)
    before, pred.grad = pred.grad.clone(), None
    net.zero_grad()
    real = net(pictures(kind, 1).flip(3))
    fake = net.score([level.detach() for level in features])
    discriminator_loss(real, fake, "hinge").sum().backward()
    assert pred.grad is None and bool(before.any())
    trained = {name: tensor for name, tensor in net.named_parameters() if tensor.requires_grad}
    assert trained and all(tensor.grad is not None for tensor in trained.values())


@pytest.mark.parametrize("kind", FROZEN)
def test_a_frozen_network_keeps_its_weights_and_receives_no_gradient(kind: str) -> None:
    net = make(kind).train()
    frozen = {name: tensor.clone() for name, tensor in net.backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1.0)
    discriminator_loss(net(pictures(kind, 1)), net(pictures(kind, 1).flip(2)), "hinge").sum().backward()
    optimizer.step()
    assert not any(tensor.requires_grad for tensor in net.backbone.parameters())
    assert all(tensor.grad is None for tensor in net.backbone.parameters())
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in net.backbone.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_r1_at_what_the_heads_read_trains_the_heads(kind: str) -> None:
    net = make(kind).eval()
    inputs = [level.detach().requires_grad_() for level in net.features(pictures(kind, 1))]
    inputs = inputs[-1:] if kind == "component" else inputs  # it judges the last of its two maps
    penalty = r1_penalty(net.score(inputs), inputs)
    assert penalty.shape == (1,) and penalty.item() > 0
    penalty.sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in net.parameters() if p.requires_grad)


@pytest.mark.parametrize("kind", ["patch", "component"])
def test_r1_at_pictures_where_all_is_trained(kind: str) -> None:
    net, images = make(kind).eval(), pictures(kind).requires_grad_()
    r1_penalty(net(images), [images]).sum().backward()
    first = next(p for p in net.parameters() if p.ndim == 4)
    assert first.grad is not None and bool(first.grad.any())


@pytest.mark.parametrize("kind", ["dino", "patch"])
def test_a_discriminator_learns_to_tell_noise_from_stripes(kind: str) -> None:
    net = make(kind).train()
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    fake = pictures(kind, 4)
    real = (torch.arange(fake.shape[3]) // 4 % 2).float().expand_as(fake)
    losses = []
    for _ in range(15):
        loss = discriminator_loss(net(real), net(fake), "hinge").mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    levels = len(KINDS[kind][2])
    assert losses[0] > 1.5 * levels and losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 600, 600), (1, 1, 600, 600), (1, 3, 4, 4)])
def test_other_shapes_are_refused(kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="B,3,H,W"):
        make(kind)(torch.zeros(shape))


def test_heads_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="512, 1024 px"):
        DinoV3Heads.Config(image_px=256)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="three widths"):
        DinoV3Heads.Config(widths=(8, 16))
    heads = DinoV3Heads(DinoV3Heads.Config(widths=(8, 16, 16)))
    with pytest.raises(ConfigError, match="maps of"):
        DinoV3Discriminator(DinoV3Discriminator.tiny().backbone, heads)


@pytest.mark.parametrize(
    "config", [DinoV2Discriminator.Config, PatchDiscriminator.Config, ComponentDiscriminator.Config]
)
def test_widths_below_one_are_refused(config: Any) -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        config(width=0)


def test_patches_of_seventy_pixels_decide_a_logit() -> None:
    """With three layers, as in the original."""
    net = PatchDiscriminator(PatchDiscriminator.Config(width=4)).eval()
    images = torch.rand(1, 3, 128, 128, requires_grad=True)
    (logits,) = net(images)
    assert logits.shape == (1, 1, 14, 14)
    logits[0, 0, 7, 7].backward()
    assert images.grad is not None
    touched = images.grad[0].abs().sum(0) > 0
    assert int(touched.any(0).sum()) == int(touched.any(1).sum()) == 70


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dinov3"])  # at 512 px it takes seconds
def test_gradients_of_pictures(kind: str) -> None:
    net = make(kind).double().eval()
    images = pictures(kind, 1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: tuple(net(x)), images, fast_mode=True)
