"""Perceptual distances as losses: LPIPS, DISTS, those of edges, activations of VGG."""

import pytest
import torch
from torch.nn.functional import l1_loss

from facerestore.core.errors import ConfigError, ShapeError, WeightsError, WeightsNotFound
from facerestore.features.dists import Dists
from facerestore.features.edges import EdgeAware, edges
from facerestore.features.lpips import Lpips, published_heads
from facerestore.features.vgg import VggFeatures, tiny_vgg
from facerestore.losses.perceptual import LAYERS, VggLoss
from facerestore.weights.store import WeightStore

LOSSES = {
    "lpips-vgg": (Lpips.tiny(), 32),
    "lpips-alex": (Lpips.tiny("alex"), 48),
    "dists": (Dists.tiny(), 32),
    "edge-lpips": (EdgeAware(Lpips.tiny()), 32),
    "edge-dists": (EdgeAware(Dists.tiny()), 32),
    "vgg": (VggLoss.tiny(), 32),
}


@pytest.mark.parametrize("name", LOSSES)
def test_rules(name, rules):
    rules.hold(*LOSSES[name], atol=1e-5)


@pytest.mark.parametrize(("make", "side"), [(Lpips.tiny, 16), (Dists.tiny, 16), (VggLoss.tiny, 16)])
def test_gradients(make, side, rules):
    loss = make().double()
    pred = torch.rand(1, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = pred.flip(3)
    direction = torch.randn(pred.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    leaf = pred.clone().requires_grad_()
    loss(leaf, target).sum().backward()
    step = 1e-6
    rise = (loss(pred + step * direction, target) - loss(pred - step * direction, target)) / (2 * step)
    assert rise.item() == pytest.approx((leaf.grad * direction).sum().item(), rel=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_a_black_picture_has_a_gradient(name):
    loss, side = LOSSES[name]
    black = torch.zeros(1, 3, side, side).requires_grad_()
    loss(black, torch.rand(1, 3, side, side)).sum().backward()
    assert black.grad is not None and black.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_in_it_learns(name):
    loss, _ = LOSSES[name]
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert not any(module.training for module in loss.modules() if module is not loss)


def test_edges_of_a_step_and_of_a_flat_picture():
    images = torch.zeros(1, 3, 8, 8)
    images[..., 4:] = torch.tensor([0.3, 0.6, 0.9])[:, None, None]
    drawn = edges(images)
    assert drawn.shape == (1, 1, 8, 8)
    inside = drawn[0, 0, 3]
    assert inside[1:3].tolist() == pytest.approx([1e-3] * 2)
    assert inside[3:5].tolist() == pytest.approx([4 * 0.6] * 2, rel=1e-5)  # beyond 1, not clipped
    with pytest.raises(ShapeError):
        edges(torch.zeros(1, 1, 8, 8))


def test_edge_aware_adds_the_distance_of_the_edges():
    pred, target = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    distance = Dists.tiny()
    drawn = [edges(images).repeat(1, 3, 1, 1) for images in (pred, target)]
    torch.testing.assert_close(EdgeAware(distance)(pred, target), distance(pred, target) + distance(*drawn))


def test_vgg_loss_weighs_layers():
    pred, target = torch.rand(1, 3, 24, 24), torch.rand(1, 3, 24, 24)
    loss = VggLoss.tiny()
    maps = zip(loss.features(pred), loss.features(target), LAYERS.values(), strict=True)
    expected = sum(weight * l1_loss(x, y) for x, y, weight in maps)
    torch.testing.assert_close(loss(pred, target), expected[None])


@pytest.mark.parametrize(
    ("loss", "least"), [(Lpips.tiny(), 16), (Lpips.tiny("alex"), 31), (Dists.tiny(), 16)]
)
def test_small_pictures(loss, least):
    assert loss(torch.rand(1, 3, least, least), torch.rand(1, 3, least, least)).isfinite().all()
    small = torch.rand(1, 3, least, least - 1)
    with pytest.raises(ShapeError, match=f"at least {least} px"):
        loss(small, small)


def test_weights_of_channels_must_fit():
    net = tiny_vgg()
    with pytest.raises(ShapeError, match="heads"):
        Lpips(net, [torch.ones(4)] * 5)
    with pytest.raises(ShapeError, match=r"1,95,1,1"):
        Dists(net, torch.ones(1, 1475, 1, 1), torch.ones(1, 1475, 1, 1))
    with pytest.raises(ConfigError, match="no layer 'conv9_9'"):
        VggFeatures(net, ("relu1_1", "conv9_9"))


@pytest.mark.parametrize("trunk", ["vgg", "alex"])
def test_heads_are_read_from_the_installed_package(trunk):
    heads = published_heads(trunk)
    assert len(heads) == 5 and all((head >= 0).all() and head.sum() > 0 for head in heads)


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (Dists.load, "torchvision/vgg16"),
        (Lpips.load, "torchvision/vgg16"),
        (lambda store: Lpips.load(store, "alex"), "torchvision/alexnet"),
        (VggLoss.load, "torchvision/vgg19"),
    ],
)
def test_what_is_missing_is_named(load, name):
    with pytest.raises(WeightsNotFound, match=name):
        load(WeightStore())


def test_published_files_go_in(tmp_path):
    """A whole classifier, as torchvision publishes it, pickled: the layers below `features` are taken."""
    from torchvision.models import vgg

    layers = vgg.make_layers(vgg.cfgs["D"])
    state = {f"features.{key}": value for key, value in layers.state_dict().items()}
    path = tmp_path / "vgg16-397923af.pth"
    torch.save(state | {"classifier.0.weight": torch.zeros(8, 8)}, path)
    store = WeightStore(paths={"torchvision/vgg16": path})
    images = torch.rand(2, 3, 32, 32)
    for load in (Dists.load, Lpips.load):
        loss = load(store)
        value = loss(images, images.flip(3))
        assert value.shape == (2,) and (value > 0).all()
        assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert loss.net[0].weight.equal(layers[0].weight)
    torch.save({"features.0.weight": torch.zeros(8, 8)}, path)
    with pytest.raises(WeightsError, match="does not fit"):
        Dists.load(WeightStore(paths={"torchvision/vgg16": path}))
