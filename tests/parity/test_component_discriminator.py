"""GFPGAN's discriminator of eyes and mouths, and its style loss (see data/component_discriminator.md)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from facerestore.losses.discriminators.roi import ComponentDiscriminator
from facerestore.losses.roi import component_style_loss
from facerestore.weights.seeded import fill_seeded

RECORDED = load_file(Path(__file__).parent / "data" / "component_discriminator.safetensors")
OFFICIAL = {
    "conv1.0.weight": (64, 3, 3, 3),
    "conv1.1.bias": (64,),
    "conv2.1.weight": (128, 64, 3, 3),
    "conv2.2.bias": (128,),
    "conv3.0.weight": (128, 128, 3, 3),
    "conv3.1.bias": (128,),
    "conv4.1.weight": (256, 128, 3, 3),
    "conv4.2.bias": (256,),
    "conv5.0.weight": (256, 256, 3, 3),
    "conv5.1.bias": (256,),
    "final_conv.0.weight": (1, 256, 3, 3),
    "final_conv.0.bias": (1,),
}


@pytest.fixture(scope="module")
def net() -> ComponentDiscriminator:
    net = ComponentDiscriminator(ComponentDiscriminator.Config())
    fill_seeded(net)
    with torch.no_grad():
        for tensor in net.parameters():
            if tensor.ndim == 4:  # whose spread is divided out again where they run
                tensor.mul_(tensor[0].numel() ** 0.5)
    return net


def crops() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    first, second = (torch.rand(2, 3, 40, 40, generator=generator) for _ in range(2))
    return first, second


def test_it_has_the_official_keys_and_shapes(net: ComponentDiscriminator) -> None:
    assert {key: tuple(tensor.shape) for key, tensor in net.state_dict().items()} == OFFICIAL


def test_logits_and_maps_equal_the_original(net: ComponentDiscriminator) -> None:
    first, _ = crops()
    with torch.no_grad():
        maps = net.features(first)
        for index, level in enumerate(maps):
            torch.testing.assert_close(level[:, ::16], RECORDED[f"tap{index}"], atol=1e-5, rtol=0)
        torch.testing.assert_close(net.score(maps)[0], RECORDED["logits"], atol=1e-5, rtol=0)
        (odd,) = net(first[:, :, :37, :39])
        torch.testing.assert_close(odd, RECORDED["logits_odd"], atol=1e-5, rtol=0)


def test_style_equals_the_original(net: ComponentDiscriminator) -> None:
    with torch.no_grad():
        pred, target = (net.features(each) for each in crops())
        style = component_style_loss(pred, target)
    torch.testing.assert_close(style, RECORDED["style"], atol=0, rtol=1e-4)
