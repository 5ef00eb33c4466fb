"""RRDBNet at a size for tests."""

import pytest
import torch
from torch.autograd import gradcheck

from facerestore.core.errors import ConfigError
from facerestore.nets.rrdbnet import RRDBNet


def tiny() -> RRDBNet:
    torch.manual_seed(0)
    return RRDBNet(RRDBNet.Config.tiny())


def test_enlarges_four_times() -> None:
    assert tiny()(torch.rand(2, 3, 5, 7)).shape == (2, 3, 20, 28)


def test_default_is_x4plus() -> None:
    """351 convolutions and 16,697,987 numbers."""
    with torch.device("meta"):
        net = RRDBNet(RRDBNet.Config())
    assert sum(key.endswith("weight") for key in net.state_dict()) == 351
    assert sum(p.numel() for p in net.parameters()) == 16_697_987


def test_gradients_are_right_despite_the_operations_in_place() -> None:
    net = tiny().double()
    image = torch.rand(1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: net(x)[..., ::5, ::5], (image,))
    net(image).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_one_item_of_a_batch_does_not_touch_another() -> None:
    net, images = tiny(), torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        together, apart = net(images), torch.cat([net(image[None]) for image in images])
    torch.testing.assert_close(together, apart, atol=1e-6, rtol=0)


def test_input_is_left_as_it_was() -> None:
    image = torch.rand(1, 3, 8, 8)
    before = image.clone()
    with torch.no_grad():
        tiny()(image)
    assert torch.equal(image, before)


def test_bad_config_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        RRDBNet.Config(num_block=0)
