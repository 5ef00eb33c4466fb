"""The networks that a stage is made of: from the user's weights, or tiny made ones."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from facerestore.diffusion.backbones import load_component
from facerestore.weights.seeded import fill_seeded

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore


def component(
    store: "WeightStore",
    name: str | None,
    make: Callable[[Mapping[str, Any]], Any],
    tiny: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = None,
) -> Any:
    """A network of diffusers in eval mode, on the CPU.

    Args:
        store: where weights are found.
        name: of a folder of diffusers in the manifest, or None for a made network.
        make: builds a network from a config; see `backbones`.
        tiny: the config of the made one.
        dtype: of loaded weights; None leaves them as stored.

    Raises:
        WeightsError: if the folder is missing, damaged, or does not fit its own config.
    """
    if name is not None:
        return load_component(store.find(name), dtype=dtype)
    net = make(tiny).eval()
    fill_seeded(net)
    return net
