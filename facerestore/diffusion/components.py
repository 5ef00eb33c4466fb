"""The networks that a stage is made of: from the user's weights, or tiny made ones."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch

from facerestore.diffusion.backbones import load_component, tiny_vae
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.configs import TINY_TAESD
from facerestore.weights.seeded import fill_seeded

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

CodecChoice = Literal["full", "tiny_decoder", "tiny"]
"""Which autoencoder a stage uses: its own, its own with the small one to decode, or the small one alone."""


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


def codec_weights(choice: CodecChoice, vae: str | None, small: str | None) -> tuple[str | None, ...]:
    """Names of the weights that a choice of autoencoder needs."""
    return {"full": (vae,), "tiny_decoder": (vae, small), "tiny": (small,)}[choice]


def latent_codec(
    store: "WeightStore", choice: CodecChoice, small: str | None, full: Callable[[], Any], *, name: str
) -> LatentCodec:
    """The autoencoder of a stage, or the small one of the TAESD family in its place.

    Args:
        store: where weights are found.
        choice: which of the two encodes and which decodes.
        small: folder of the small one in the manifest, made for the same latents; None makes one.
        full: loads the stage's own; not called where it is not used.
        name: of the stage, for its random numbers.

    Raises:
        ShapeError: if the small one has other latents.
        WeightsError: if a folder is missing, damaged, or does not fit its own config.
    """
    if choice == "full":
        return LatentCodec.of(full(), name=name)
    other = component(store, small, tiny_vae, TINY_TAESD, dtype=torch.float32)
    if choice == "tiny":
        return LatentCodec.of(other, name=name)
    return LatentCodec.of(full(), name=name, decoder=LatentCodec.of(other))
