"""The recognition and description networks at a size for tests, and what their settings refuse."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from facerestore.core.errors import ConfigError, ShapeError
from facerestore.nets.faceres import FaceRes
from facerestore.nets.grey_resnet import GreyResNet
from facerestore.nets.iresnet import IResNet
from facerestore.weights.seeded import fill_seeded_norms

TINY: list[tuple[Callable[[], nn.Module], tuple[int, int, int], int]] = [
    (lambda: IResNet(IResNet.Config.tiny("insightface")), (3, 112, 112), 16),
    (lambda: IResNet(IResNet.Config.tiny("adaface")), (3, 112, 112), 16),
    (lambda: GreyResNet(GreyResNet.Config.tiny()), (1, 128, 128), 16),
    (lambda: FaceRes(FaceRes.Config.tiny()), (3, 224, 224), 64),
]


@pytest.mark.parametrize(("build", "shape", "numbers"), TINY)
def test_describes_and_passes_gradients_to_everything(
    build: Callable[[], nn.Module], shape: tuple[int, int, int], numbers: int
) -> None:
    net = build()
    if not isinstance(net, FaceRes):
        fill_seeded_norms(net)
    net.eval()
    pixels = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    described = net(pixels)
    assert described.shape == (2, numbers) and described.isfinite().all()
    described.square().sum().backward()
    assert pixels.grad is not None and pixels.grad.abs().sum() > 0
    assert all(p.grad is not None for p in net.parameters())


def test_made_weights_are_those_of_their_names_and_tell_pictures_apart() -> None:
    first, second = (IResNet(IResNet.Config.tiny("adaface")).eval() for _ in range(2))
    fill_seeded_norms(first)
    fill_seeded_norms(second)
    pixels = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embeddings = first(pixels)
        assert torch.equal(embeddings, second(pixels))
    assert torch.cosine_similarity(embeddings[:1], embeddings[1:]) < 0.99


def test_the_description_network_has_3_2_million_parameters() -> None:
    with torch.device("meta"):
        net = FaceRes(FaceRes.Config())
    assert sum(p.numel() for p in net.parameters()) == 3_200_992
    assert sum(isinstance(m, nn.Conv2d) for m in net.modules()) == 27


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (IResNet.Config, {"layout": "adaface", "depths": (3, 4, 14)}, "four numbers"),
    (IResNet.Config, {"layout": "adaface", "depths": (3, 4, 0, 3)}, "1 or more"),
    (IResNet.Config, {"layout": "insightface", "width": 24}, "multiple of 16"),
    (IResNet.Config, {"layout": "insightface", "numbers": 0}, "1 or more"),
    (GreyResNet.Config, {"width": 0}, "1 or more"),
    (FaceRes.Config, {"width": 0}, "1 or more"),
]


@pytest.mark.parametrize(("config", "settings", "words"), BAD)
def test_bad_settings_are_refused(config: Any, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        config(**settings)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ShapeError, match="112"):
        IResNet(IResNet.Config.tiny())(torch.zeros(1, 3, 128, 128))
    with pytest.raises(ShapeError, match="128"):
        GreyResNet(GreyResNet.Config.tiny())(torch.zeros(1, 3, 128, 128))
