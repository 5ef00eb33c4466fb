"""The first three stages of DINOv3's ConvNeXt."""

from typing import Any

import pytest
import torch
from torch import Tensor

from facerestore.core.errors import ConfigError
from facerestore.nets.convnext import ConvNeXt, published_state


def net() -> ConvNeXt:
    torch.manual_seed(0)
    return ConvNeXt(ConvNeXt.Config.tiny())


def test_maps_are_a_quarter_an_eighth_and_a_sixteenth() -> None:
    maps = net()(torch.rand(2, 3, 68, 50))
    assert [tuple(level.shape) for level in maps] == [(2, 8, 17, 12), (2, 16, 8, 6), (2, 32, 4, 3)]


def test_what_is_done_between_stages_is_read_by_the_next() -> None:
    network, images = net(), torch.rand(1, 3, 32, 32)
    seen: list[Tensor] = []

    def halved(level: Tensor) -> Tensor:
        seen.append(level)
        return level / 2

    maps = network(images, halved)
    assert all(torch.equal(level, before / 2) for level, before in zip(maps, seen, strict=True))
    torch.testing.assert_close(maps[1] * 2, network.stages[1](network.downsample_layers[1](maps[0])))


def official(**more: Tensor) -> dict[str, Tensor]:
    """The official file: four stages, and the last normalisation under both of its names."""
    rest = {f"{name}.{leaf}": torch.zeros(1) for name in ("norm", "norms.3") for leaf in ("weight", "bias")}
    fourth = {"downsample_layers.3.1.weight": torch.zeros(1), "stages.3.0.norm.weight": torch.zeros(1)}
    return net().state_dict() | fourth | rest | more


def test_the_official_file_goes_in_and_nothing_else_is_dropped() -> None:
    network = ConvNeXt(ConvNeXt.Config.tiny())
    network.load_state_dict(published_state(official()))
    assert torch.equal(network.stages[1][1].pwconv1.weight, net().stages[1][1].pwconv1.weight)
    for foreign in ("head.weight", "stages.4.0.gamma", "normal.weight"):
        assert foreign in published_state(official(**{foreign: torch.zeros(1)}))


def test_names_of_transformers_become_official_ones_and_unknown_ones_stay() -> None:
    names = [
        "stages.0.downsample_layers.0.weight",
        "model.stages.2.layers.1.depthwise_conv.weight",
        "stages.1.layers.0.layer_norm.bias",
        "stages.1.layers.0.pointwise_conv2.bias",
        "stages.1.layers.0.gamma",
        "stages.3.layers.0.gamma",
        "layer_norm.weight",
        "classifier.weight",
    ]
    assert list(published_state(dict.fromkeys(names, torch.zeros(1)))) == [
        "downsample_layers.0.0.weight",
        "stages.2.1.dwconv.weight",
        "stages.1.0.norm.bias",
        "stages.1.0.pwconv2.bias",
        "stages.1.0.gamma",
        "classifier.weight",
    ]


@pytest.mark.parametrize("settings", [{"depths": (1, 1)}, {"widths": (8, 0, 8)}, {"widths": (1, 2, 3, 4)}])
def test_impossible_sizes_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="three depths"):
        ConvNeXt.Config(**settings)


def test_unknown_sizes_are_refused() -> None:
    unknown: Any = "huge"
    with pytest.raises(ConfigError, match="tiny, small, base, large"):
        ConvNeXt.Config.of(unknown)
