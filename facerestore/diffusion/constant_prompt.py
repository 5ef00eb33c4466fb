"""The embedding of a prompt that never changes, kept as a weight file, so that no text encoder is needed."""

from typing import TYPE_CHECKING

import torch

from facerestore.core.errors import WeightsError
from facerestore.core.seeding import generator

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

PROMPT_KEY = "prompt"


def constant_prompt(store: "WeightStore", name: str | None, *, tokens: int, width: int) -> torch.Tensor:
    """The embedding (L,width) float32 of a weight file, or a made one.

    Args:
        store: where weights are found.
        name: of a file with one tensor `prompt`, or None for a made one.
        tokens: length of the made one.
        width: what the network's cross-attention takes.

    Raises:
        WeightsError: if the file holds anything else, or an embedding of another width.
    """
    if name is None:
        return torch.randn(tokens, width, generator=generator(0, "constant prompt"))
    state = store.load(name)
    if set(state) != {PROMPT_KEY}:
        raise WeightsError(
            f"{name}: expected one tensor {PROMPT_KEY!r}, got {', '.join(sorted(state)) or 'none'}; "
            f"`facerestore weights prepare {name}` makes the file of the text encoder"
        )
    prompt = state[PROMPT_KEY]
    if prompt.ndim != 2 or prompt.shape[1] != width:
        raise WeightsError(f"{name}: expected an embedding (L,{width}), got {tuple(prompt.shape)}")
    return prompt.float()
