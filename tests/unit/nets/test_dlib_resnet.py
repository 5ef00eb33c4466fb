"""The recognition network at a size for tests."""

import pytest
import torch

from facerestore.core.errors import ConfigError
from facerestore.nets.dlib_resnet import DlibResNet


def test_describes_by_128_numbers_and_passes_gradients() -> None:
    torch.manual_seed(0)
    net = DlibResNet(DlibResNet.Config.tiny())
    pixels = torch.randn(2, 3, 150, 150, requires_grad=True)
    descriptors = net(pixels)
    assert descriptors.shape == (2, 128)
    descriptors.square().sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert all(p.grad is not None for p in net.parameters())


def test_default_has_29_convolutions() -> None:
    """And 5,614,592 numbers, as many as the source package holds."""
    with torch.device("meta"):
        net = DlibResNet(DlibResNet.Config())
    assert sum(isinstance(m, torch.nn.Conv2d) for m in net.modules()) == 29
    assert sum(p.numel() for p in net.parameters()) == 5_614_592


def test_bad_config_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 or more"):
        DlibResNet.Config(width=0)
