"""The network of FID: sizes, keys, and that train mode changes nothing."""

import pytest
import torch
from torchvision.models import inception_v3

from facerestore.core.errors import ConfigError, KeyMismatch, ShapeError
from facerestore.features.inception import WEIGHT, FidFeatures
from facerestore.nets.fid_inception import FidInception
from facerestore.weights.store import WeightStore


def test_keys_and_shapes_are_those_of_torchvision():
    with torch.device("meta"):
        official = inception_v3(num_classes=1008, aux_logits=False, init_weights=False).state_dict()
        ours = FidInception(FidInception.Config()).state_dict()
    wanted = {
        key: tensor.shape
        for key, tensor in official.items()
        if not key.startswith("fc.") and not key.endswith("num_batches_tracked")
    }
    assert {key: tensor.shape for key, tensor in ours.items()} == wanted


def test_a_tiny_one_describes_by_128_numbers_in_train_mode_too():
    features = FidFeatures.tiny()
    images = torch.rand(2, 3, 40, 50)
    with torch.no_grad():
        first = features(images)
        assert first.shape == (2, features.width) == (2, 128) and (first >= 0).all()
        assert (first[0] - first[1]).abs().max() > 1e-3
        torch.testing.assert_close(features(images[1:]), first[1:], atol=1e-5, rtol=1e-4)
        assert torch.equal(features.train()(images), first)
    with pytest.raises(ConfigError, match="unit"):
        FidInception.Config(unit=0)
    with pytest.raises(ShapeError):
        features(torch.rand(1, 1, 40, 40))


def test_the_published_file_goes_in_with_its_classifier(tmp_path, monkeypatch):
    """Pickled, with a classifier of 1008 classes and counters of batches, which are left out."""
    net = FidFeatures.tiny().net
    state = dict(net.state_dict())
    counters = {
        key.replace("running_var", "num_batches_tracked"): torch.tensor(0) for key in state if "_var" in key
    }
    path = tmp_path / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(state | counters | {"fc.weight": torch.zeros(1008, 128), "fc.bias": torch.zeros(1008)}, path)
    images = torch.rand(1, 3, 32, 32)
    expected = FidFeatures(net)(images)
    monkeypatch.setattr(FidInception, "Config", FidInception.Config.tiny)  # the published one has 24 million
    loaded = FidFeatures.load(WeightStore(paths={WEIGHT: path}))
    assert torch.equal(loaded(images), expected)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    del state["Mixed_7c.branch_pool.bn.bias"]
    torch.save(state, path)
    with pytest.raises(KeyMismatch, match=r"branch_pool\.bn\.bias"):
        FidFeatures.load(WeightStore(paths={WEIGHT: path}))
