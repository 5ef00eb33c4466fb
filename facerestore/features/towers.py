"""The one door to transformers for networks that look at pictures: DINOv2 and the vision tower of CLIP.

No code of a folder is executed, nothing is looked up on a hub, and torch's global generator is left alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facerestore.core.errors import WeightsError
from facerestore.weights.folders import read_json, weight_files
from facerestore.weights.load import check_keys, read_tensors
from facerestore.weights.seeded import fill_seeded


@dataclass(frozen=True, slots=True)
class Tower:
    """One family of networks, as transformers calls it and as its files do.

    Attributes:
        net: class of the network.
        config: class of its settings.
        model_type: what `config.json` says of itself.
        settings: of that file, what the class of the settings takes.
        unused: beginnings of keys that a file may have and that nothing needs.
        renamed: parts of keys as they were published, and as transformers has them since version 5.
    """

    net: str
    config: str
    model_type: str
    settings: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict
    unused: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()


def load_tower(folder: Path, tower: Tower) -> Any:
    """Read a network from a folder as hubs have it: `config.json` beside its weights.

    Args:
        folder: where they lie.
        tower: the family that it should be of.

    Returns:
        The network in float32, in eval mode, frozen.

    Raises:
        WeightsNotFound: if the folder lacks its config or its weights.
        WeightsError: if it holds another network, or a damaged one.
        KeyMismatch: if the weights do not fit the config.
    """
    path = folder / "config.json"
    config = read_json(path, "give the folder of one network")
    if config.get("model_type") != tower.model_type:
        raise WeightsError(f"{path} describes {config.get('model_type')!r}, no {tower.model_type}")
    try:
        net = _empty(tower, tower.settings(config))
    except Exception as error:  # each version of transformers checks other things, in its own words
        raise WeightsError(f"{path} describes no {tower.net}: {error}") from error
    state: dict[str, Tensor] = {}
    for file in weight_files(folder, "transformers"):
        state |= read_tensors(file, dtype=torch.float32)
    own = net.state_dict()
    state = {
        _key(key, tower, own): tensor for key, tensor in state.items() if not key.startswith(tower.unused)
    }
    check_keys(net, state, str(folder))
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def made_tower(tower: Tower, settings: Mapping[str, Any]) -> Any:
    """A network with made weights, the same on every machine; for tests."""
    net = _empty(tower, settings)
    fill_seeded(net)
    with torch.no_grad():
        for key, tensor in net.state_dict().items():
            if tensor.ndim == 1 and key.endswith(("weight", "lambda1")):
                tensor.add_(1)  # gains, which leave signals their size
    return net.eval().requires_grad_(False)


def _empty(tower: Tower, settings: Mapping[str, Any]) -> Any:
    """The network that settings describe, its weights not yet set."""
    import transformers

    config = getattr(transformers, tower.config)(**settings)
    config._attn_implementation = None  # it could name code on a hub
    with torch.device("meta"):  # without drawing weights that are overwritten
        net = getattr(transformers, tower.net)(config)
    net.to_empty(device="cpu")
    for module in net.modules():
        if hasattr(module, "position_ids"):  # of CLIP: no file holds it
            module.position_ids = torch.arange(module.position_ids.shape[-1])[None]
    return net


def _key(key: str, tower: Tower, own: Mapping[str, Tensor]) -> str:
    """A key of a file as the installed transformers has it."""
    for published, today in tower.renamed:
        if published in key and key.replace(published, today) in own:
            return key.replace(published, today)
    return key
