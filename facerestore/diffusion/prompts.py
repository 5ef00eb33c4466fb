"""The one door to transformers: makes the embedding of the empty prompt, so that restoring needs no text."""

import json
from pathlib import Path
from typing import Any

import torch

from facerestore.core.errors import WeightsError, WeightsNotFound
from facerestore.weights.load import check_keys, read_tensors

_TOKENS = 77
_FILES = ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin")
_PREFIX = "text_model."  # before every key in files of transformers below 5, and in its own networks there


def empty_prompt(folder: str | Path) -> torch.Tensor:
    """What the text encoder of Stable Diffusion 2 says to no words: (77,width) float32.

    The tokens are those of open_clip, with which it was trained: start, end, and then zeros. (Stable
    Diffusion 1 fills up with ends.) Nothing is masked, and the last layer is normalised.

    Args:
        folder: `text_encoder/` of the pipeline, in the form of transformers.

    Raises:
        WeightsNotFound: if the folder lacks its config or its weights.
        WeightsError: if the config describes no text encoder of CLIP.
        KeyMismatch: if the weights do not fit the config.
    """
    folder = Path(folder)
    net = _text_encoder(folder)
    state = {key.removeprefix(_PREFIX): tensor.float() for key, tensor in _weights(folder).items()}
    state.pop("embeddings.position_ids", None)  # numbers in order, which early versions stored
    if next(iter(net.state_dict())).startswith(_PREFIX):
        state = {_PREFIX + key: tensor for key, tensor in state.items()}
    check_keys(net, state, str(folder))
    net.load_state_dict(state, assign=True)
    start, end = net.config.vocab_size - 2, net.config.vocab_size - 1
    tokens = torch.tensor([[start, end] + [0] * (_TOKENS - 2)])
    with torch.no_grad():
        return net.eval()(input_ids=tokens, return_dict=False)[0][0]


def _text_encoder(folder: Path) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    path = folder / "config.json"
    if not path.is_file():
        raise WeightsNotFound(f"{path} is missing; give the folder text_encoder/ of Stable Diffusion 2.1")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.get("model_type") != "clip_text_model":
            raise WeightsError(f"{path} describes {config.get('model_type')!r}, no clip_text_model")
        return CLIPTextModel(CLIPTextConfig(**config)).float()
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} describes no text encoder: {error}") from error


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    for name in _FILES:
        if (folder / name).is_file():
            return read_tensors(folder / name)
    raise WeightsNotFound(f"{folder} holds none of {', '.join(_FILES)}")
