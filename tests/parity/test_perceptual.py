"""LPIPS, DISTS and the network of FID against the packages that published them, on the same weights."""

from types import SimpleNamespace

import pytest
import torch
from torchvision.models import AlexNet as OfficialAlexNet
from torchvision.models import vgg

from facerestore.features.dists import Dists
from facerestore.features.edges import EdgeAware, edges
from facerestore.features.inception import FidFeatures
from facerestore.features.lpips import Lpips, published_heads
from facerestore.nets.alexnet import AlexNet
from facerestore.nets.fid_inception import FidInception
from facerestore.nets.vgg import Vgg
from facerestore.weights.seeded import made
from facerestore.weights.store import WeightStore

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def net() -> Vgg:
    """Made weights, twice the power for what a ReLU takes away: signals keep their size to the last layer."""
    net = made(lambda: Vgg(Vgg.Config()))
    for key, tensor in net.state_dict().items():
        tensor.mul_(2**0.5 if key.endswith("weight") else 1)
    return net


@pytest.fixture(scope="module")
def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, 16, 12, generator=generator)
    target = torch.nn.functional.interpolate(target, (64, 48), mode="bicubic").clamp(0, 1)
    noise = torch.randn(target.shape, generator=generator)
    return (target + torch.tensor([0.03, 0.2]).view(2, 1, 1, 1) * noise).clamp(0, 1), target


def torchvision_vgg16(net: Vgg) -> SimpleNamespace:
    """What torchvision would load: its own layers with the weights of `net`, without the classifier."""
    layers = vgg.make_layers(vgg.cfgs["D"])
    layers.load_state_dict(net.state_dict())
    return SimpleNamespace(features=layers)


@pytest.fixture
def pyiqa_dists(net: Vgg, monkeypatch: pytest.MonkeyPatch) -> torch.nn.Module:
    dists_arch = pytest.importorskip(
        "pyiqa.archs.dists_arch", reason="pyiqa is not installed; it comes with the extra metrics"
    )
    monkeypatch.setattr(dists_arch.models, "vgg16", lambda weights: torchvision_vgg16(net))
    official = dists_arch.DISTS(pretrained=False)
    published = WeightStore().load("dists")
    official.alpha.data, official.beta.data = published["alpha"], published["beta"]
    return official.requires_grad_(False)


def ours(net: Vgg) -> Dists:
    return Dists(net, **WeightStore().load("dists"))


def test_dists(net, images, pyiqa_dists):
    expected = pyiqa_dists(*images)[:, 0]
    torch.testing.assert_close(ours(net)(*images), expected, atol=1e-6, rtol=0)
    assert expected[0] > 5e-4 and expected[1] > 0.01


def test_gradient_of_dists(net, images, pyiqa_dists):
    pred, target = images
    gradients = []
    for loss in (ours(net), pyiqa_dists):
        leaf = pred.clone().requires_grad_()
        loss(leaf, target).sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients, atol=1e-5 * gradients[1].abs().max().item(), rtol=1e-3)


def test_edge_aware_dists(net, images, pyiqa_dists):
    """The official loss gives pyiqa one channel, which its normalisation makes three of."""
    drawn = [edges(each) for each in images]
    assert drawn[0].shape[1] == 1 and drawn[0].max() > 1
    expected = (pyiqa_dists(*images) + pyiqa_dists(*drawn))[:, 0]
    torch.testing.assert_close(EdgeAware(ours(net))(*images), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("trunk", ["vgg", "alex"])
def test_lpips(trunk, net, images, monkeypatch):
    import lpips

    tv = lpips.pretrained_networks.tv
    small: Vgg | AlexNet = net if trunk == "vgg" else made(lambda: AlexNet(AlexNet.Config()))
    if trunk == "vgg":
        monkeypatch.setattr(tv, "vgg16", lambda pretrained: torchvision_vgg16(net))
    else:
        layers = OfficialAlexNet().features
        layers.load_state_dict(small.state_dict())
        monkeypatch.setattr(tv, "alexnet", lambda pretrained: SimpleNamespace(features=layers))
    official = lpips.LPIPS(net=trunk, verbose=False)
    with torch.no_grad():
        expected = official(*images, normalize=True)[:, 0, 0, 0]
        found = Lpips(small, published_heads(trunk))(*images)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert expected[1] > expected[0] > 0


def test_network_of_fid(images, monkeypatch):
    inception = pytest.importorskip(
        "pyiqa.archs.inception", reason="pyiqa is not installed; it comes with the extra metrics"
    )
    net = made(lambda: FidInception(FidInception.Config()))
    for key, tensor in net.state_dict().items():
        if key.endswith(("running_var", "bn.weight")):
            tensor.copy_(1 + tensor)
        elif key.endswith("conv.weight"):
            tensor.mul_(2**0.5)

    def load(official: torch.nn.Module, url: str) -> None:
        missing, unexpected = official.load_state_dict(net.state_dict(), strict=False)
        assert not unexpected and all("fc." in key or "num_batches" in key for key in missing)

    monkeypatch.setattr(inception, "load_pretrained_network", load)
    official = inception.InceptionV3().eval()
    with torch.no_grad():
        (expected,) = official(images[0], resize_input=True, normalize_input=True)
        found = FidFeatures(net)(images[0])
    assert found.shape == (2, 2048) and found.std() > 0.05
    torch.testing.assert_close(found, expected[:, :, 0, 0], atol=1e-5, rtol=1e-4)
