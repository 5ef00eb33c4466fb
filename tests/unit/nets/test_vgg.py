"""VGG and AlexNet against torchvision, and what is tapped of them."""

import pytest
import torch
from torch.nn import functional
from torchvision.models import alexnet, vgg

from facerestore.core.errors import ConfigError
from facerestore.nets.alexnet import AlexNet
from facerestore.nets.vgg import Vgg
from facerestore.weights.seeded import fill_seeded, made

PIXELS = torch.randn(2, 3, 40, 36, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("depth", "config"), [(16, "D"), (19, "E")])
def test_vgg_is_that_of_torchvision(depth, config):
    official = vgg.make_layers(vgg.cfgs[config])
    net = made(lambda: Vgg(Vgg.Config(depth=depth)))
    official.load_state_dict(net.state_dict())
    with torch.no_grad():
        expected, found = PIXELS, {}
        for name, layer in zip(net.names, official, strict=True):
            expected = found[name] = layer(expected.clone())  # its ReLU overwrites what it is given
        taps = ("relu5_1", "conv1_1", "relu3_3", "pool5")
        for tap, ours in zip(taps, net(PIXELS, taps), strict=True):
            assert torch.equal(ours, found[tap]), tap
    assert [type(layer) for layer in net] == [type(layer) for layer in official]
    assert net.config.widths == (64, 128, 256, 512, 512)


def test_names_follow_the_literature():
    names = Vgg(Vgg.Config.tiny(16)).names
    assert names[:6] == ("conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv2_1")
    assert names[-3:] == ("conv5_3", "relu5_3", "pool5") and "conv3_4" not in names
    assert {"conv3_4", "conv5_4"} <= set(Vgg(Vgg.Config.tiny(19)).names)


def test_only_what_is_asked_for_is_computed():
    net = Vgg(Vgg.Config.tiny())
    asked: list[int] = []
    for index, layer in enumerate(net):
        layer.register_forward_hook(lambda *_, index=index: asked.append(index))
    maps = net(PIXELS, ("relu2_1", "relu1_2"))
    assert [each.shape[1] for each in maps] == [8, 4] and max(asked) == net.names.index("relu2_1")


def test_other_pooling_and_unknown_layers():
    net = Vgg(Vgg.Config.tiny())
    (mean,) = net(PIXELS, ("relu2_1",), lambda maps: functional.avg_pool2d(maps, 2))
    (most,) = net(PIXELS, ("relu2_1",))
    assert mean.shape == most.shape and not torch.equal(mean, most)
    with pytest.raises(ConfigError, match="VGG-16 has no layer 'relu3_4'"):
        net(PIXELS, ("relu1_1", "relu3_4"))
    with pytest.raises(ConfigError, match="width"):
        Vgg.Config(width=0)


def test_alexnet_is_that_of_torchvision():
    official = alexnet(weights=None).features.eval()
    fill_seeded(official)
    net = AlexNet(AlexNet.Config())
    assert official.state_dict().keys() == net.state_dict().keys()
    net.load_state_dict(official.state_dict())
    pixels, expected = functional.interpolate(PIXELS, (96, 80)), []
    with torch.no_grad():
        maps = net(pixels)
        for layer in official:
            pixels = layer(pixels)
            if isinstance(layer, torch.nn.ReLU):
                expected.append(pixels.clone())
    assert len(maps) == 5 and all(map(torch.equal, maps, expected))
    assert net.config.widths == tuple(each.shape[1] for each in maps)
    with pytest.raises(ConfigError, match="width"):
        AlexNet.Config(width=0)


def test_made_networks_draw_nothing_and_are_the_same_every_time():
    before = torch.get_rng_state()
    first, second = (made(lambda: Vgg(Vgg.Config.tiny())).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)
