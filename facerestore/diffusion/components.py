"""The networks that a stage is made of: from the user's weights, or tiny made ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from facerestore.core.errors import ConfigError
from facerestore.diffusion.backbones import load_component, tiny_vae
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.lora import Adapter
from facerestore.diffusion.merging import Merge, merge_adapter, plan_merge
from facerestore.diffusion.time_vae import time_keys
from facerestore.weights.seeded import fill_seeded

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

Piece = tuple[Adapter, float | None]
"""An adapter and its scale, alpha / rank, where its file does not say it."""
# Settings that have one value in a family of base models, whatever their size.
_TELL_APART = ("in_channels", "out_channels", "latent_channels", "scaling_factor", "shift_factor")
_TELL_APART += ("addition_embed_type", "use_linear_projection")
CodecChoice = Literal["full", "tiny_decoder", "tiny"]
"""Which autoencoder a stage uses: its own, its own with the small one to decode, or the small one alone."""


def component(
    store: "WeightStore",
    name: str | None,
    make: Callable[[Mapping[str, Any]], Any],
    tiny: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = None,
    pieces: Sequence[Piece] = (),
) -> Any:
    """A network of diffusers in eval mode, on the CPU, its adapters merged.

    Args:
        store: where weights are found.
        name: of a folder of diffusers in the manifest, or None for a made network.
        make: builds a network from a config; see `backbones`.
        tiny: the config of the made one, and what tells the wanted base model from others.
        dtype: of loaded weights; None leaves them as stored.
        pieces: adapters of this network with their scales, merged in this order, in float32.

    Raises:
        ConfigError: if it is another base model, or an adapter's scale is not known.
        KeyMismatch: if an adapter was made for another network, or for another scale.
        WeightsError: if the folder is missing, damaged, or does not fit its own config.
    """

    def merges(net: nn.Module) -> list[Merge]:
        with torch.device("meta"):
            _require_kind(net, make(tiny), f"{name} ({store.find(str(name))})")
        return [plan_merge(net, adapter, scale=scale) for adapter, scale in pieces]

    if name is not None:
        return load_component(store.readable(name), dtype=dtype, merges=merges)
    net = make(tiny).eval()
    fill_seeded(net)
    for adapter, scale in pieces:
        merge_adapter(net, adapter, scale=scale)
    return net


def _require_kind(net: Any, wanted: Any, source: str) -> None:
    """Check that a network is of the base model that is wanted, as far as it has settings to tell."""
    found, kind = type(net).__name__, type(wanted).__name__
    remedy = "give the folder of the base model that the restorer was trained on"
    if found != kind:
        raise ConfigError(f"{source} has class {found}, where {kind} is needed; {remedy}")
    facts = [(key, net.config.get(key), wanted.config.get(key)) for key in _TELL_APART]
    if kind == "AutoencoderKL":
        facts.append(("time_layers", bool(time_keys(net)), bool(time_keys(wanted))))
    differing = [
        f"{key} is {ours}, not {theirs}" for key, ours, theirs in facts if (ours or 0) != (theirs or 0)
    ]
    if differing:
        raise ConfigError(f"{source} is another base model: {', '.join(differing)}; {remedy}")


def codec_weights(choice: CodecChoice, vae: str | None, small: str | None) -> tuple[str | None, ...]:
    """Names of the weights that a choice of autoencoder needs."""
    return {"full": (vae,), "tiny_decoder": (vae, small), "tiny": (small,)}[choice]


def latent_codec(
    store: "WeightStore",
    choice: CodecChoice,
    small: str | None,
    full: Callable[[], Any],
    *,
    tiny: Mapping[str, Any],
    name: str,
) -> LatentCodec:
    """The autoencoder of a stage, or the small one of the TAESD family in its place.

    Args:
        store: where weights are found.
        choice: which of the two encodes and which decodes.
        small: folder of the small one in the manifest, made for the same latents; None makes one.
        full: loads the stage's own; not called where it is not used.
        tiny: the config of a made small one.
        name: of the stage, for its random numbers.

    Raises:
        ShapeError: if the small one has other latents.
        WeightsError: if a folder is missing, damaged, or does not fit its own config.
    """
    if choice == "full":
        return LatentCodec.of(full(), name=name)
    other = component(store, small, tiny_vae, tiny, dtype=torch.float32)
    if choice == "tiny":
        return LatentCodec.of(other, name=name)
    return LatentCodec.of(full(), name=name, decoder=LatentCodec.of(other))
