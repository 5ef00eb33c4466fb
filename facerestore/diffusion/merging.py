"""Adapters become part of a network: checked against its layers, and added to its weights exactly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from facerestore.core.errors import ConfigError, KeyMismatch
from facerestore.diffusion.lora import Adapter, LowRank, scaled

_PROJECTIONS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True, slots=True)
class Merge:
    """What one adapter makes of the tensors of the network that it was checked against.

    Attributes:
        updates: low-rank updates with their factors, by parameter.
        wholes: tensors that take the place of the network's, by parameter.
        strength: how much of the tensors in `wholes` is taken.
    """

    updates: Mapping[str, Sequence[tuple[LowRank, float]]]
    wholes: Mapping[str, Tensor]
    strength: float = 1.0

    def __call__(self, parameter: str, value: Tensor) -> Tensor:
        """The tensor after merging: float32 where something changes, else `value` itself."""
        if parameter not in self.updates and parameter not in self.wholes:
            return value
        value = value.detach().float()
        if parameter in self.wholes:
            value = torch.lerp(value, self.wholes[parameter].to(value), self.strength)
        for update, factor in self.updates.get(parameter, ()):
            value = _added(value, update, factor)
        return value


def plan_merge(
    net: nn.Module, adapter: Adapter, *, scale: float | None = None, strength: float = 1.0
) -> Merge:
    """Check an adapter against a network, which may still be without memory, and say what it changes.

    Args:
        net: the network that the adapter was trained on.
        adapter: for this network alone; see `Adapter.part`.
        scale: alpha / rank, needed where the file does not say alpha.
        strength: 0 leaves the network as it is, 1 is what was trained; goes for tensors trained in full too.

    Raises:
        ConfigError: if the adapter has parts for several networks, or if no scale is known.
        KeyMismatch: if it was made for another network, or for another scale.
    """
    updates: dict[str, list[tuple[LowRank, float]]] = {}
    for update, factor in scaled(adapter, scale):
        updates.setdefault(f"{update.module}.weight", []).append((update, factor * strength))
    originals(net, adapter)  # checks
    return Merge(updates, {whole.parameter: whole.value for whole in adapter.wholes}, strength)


def merge_adapter(
    net: nn.Module, adapter: Adapter, *, scale: float | None = None, strength: float = 1.0
) -> None:
    """Add an adapter to the weights of `net`, computed in float32 and rounded once to the weight's dtype.

    Parameters stay the same objects and get new storage: what was mapped from a file is never written to.
    To undo it, take `originals(net, adapter)` before and give them to `unmerge_adapter`. Arguments and errors
    are those of `plan_merge`; after an error nothing was changed.
    """
    merge = plan_merge(net, adapter, scale=scale, strength=strength)
    own = _tensors(net)
    for parameter in list(originals(net, adapter)):  # the names alone, so that each weight is freed at once
        own[parameter].data = merge(parameter, own[parameter]).to(own[parameter].dtype)


def originals(net: nn.Module, adapter: Adapter) -> dict[str, Tensor]:
    """The tensors of `net` that `merge_adapter` would replace, by parameter, without a copy.

    Raises:
        ConfigError: if the adapter has parts for several networks.
        KeyMismatch: if the adapter was made for another network.
    """
    if len(adapter.components) > 1:
        raise ConfigError(f"{adapter.source} is for {adapter.components}; merge one part(...) at a time")
    require_fit(dict(net.named_modules()), net.state_dict(), adapter)
    changed = [whole.parameter for whole in adapter.wholes]
    changed += [f"{update.module}.weight" for update in adapter.updates]
    own = _tensors(net)
    return {parameter: own[parameter].data for parameter in changed}


def unmerge_adapter(net: nn.Module, before: Mapping[str, Tensor]) -> None:
    """Put back, bit for bit, the `originals` that were taken before merging."""
    own = _tensors(net)
    for parameter, value in before.items():
        own[parameter].data = value


def _tensors(net: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, under each of its names if one is shared."""
    return dict(net.named_parameters(remove_duplicate=False)) | dict(
        net.named_buffers(remove_duplicate=False)
    )


def require_fit(modules: Mapping[str, nn.Module], state: Mapping[str, Tensor], adapter: Adapter) -> None:
    """Check an adapter against the layers and the tensors of a network.

    Raises:
        KeyMismatch: if they do not fit; it names every layer, with both shapes.
    """
    unexpected: list[str] = []
    misshapen: list[str] = []
    for update in adapter.updates:
        module = modules.get(update.module)
        if not isinstance(module, _PROJECTIONS):
            unexpected.append(update.key)
            continue
        wanted = (module.weight.shape[1], *_kernel(module.weight))
        found = (update.down.shape[1], *_kernel(update.down))
        if (
            wanted != found
            or module.weight.shape[0] != update.up.shape[0]
            or getattr(module, "groups", 1) > 1
        ):
            misshapen.append(
                f"{update.key}: expected an update of {tuple(module.weight.shape)}, got "
                f"{(update.up.shape[0], *update.down.shape[1:])}"
            )
    for whole in adapter.wholes:
        if whole.parameter not in state:
            unexpected.append(whole.key)
        elif state[whole.parameter].shape != whole.value.shape:
            expected, got = tuple(state[whole.parameter].shape), tuple(whole.value.shape)
            misshapen.append(f"{whole.key}: expected {expected}, got {got}")
    if unexpected or misshapen:
        hint = "It was trained on another network: give the base model that it belongs to."
        raise KeyMismatch(adapter.source, [], unexpected, misshapen, hint)


def _kernel(weight: Tensor) -> tuple[int, ...]:
    """Size of the kernel, () for a 1x1 one: that is a linear layer, and files mix the two."""
    kernel = tuple(weight.shape[2:])
    return () if all(size == 1 for size in kernel) else kernel


def _added(base: Tensor, update: LowRank, factor: float) -> Tensor:
    up, down = (tensor.detach().to(base).flatten(1) for tensor in (update.up, update.down))
    return torch.addmm(base.flatten(1), up, down, alpha=factor).reshape(base.shape)
