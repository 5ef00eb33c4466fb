"""The one door to transformers: what text encoders say to a prompt, so that restoring needs none of them.

Z-Image's encoder takes 8 GB, FLUX's T5 9.5 GB, both in bfloat16. So a network is made without memory, its
weights stay mapped from their files, one block at a time computes on a copy in float32, and one network is
gone before the next is loaded. At full size, with made weights, on one core of a busy machine: 34 s and
0.4 GB besides the mapped file for Z-Image's encoder, 140 s and 1.1 GB for T5.

No code of a folder is executed, and nothing is looked up on a hub.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facerestore.core.errors import ConfigError, WeightsError, WeightsNotFound
from facerestore.diffusion.constant_prompt import PROMPT_KEY
from facerestore.weights.folders import read_json, require_vocabulary, weight_files
from facerestore.weights.load import check_keys, read_tensors

_CLIP_TOKENS, _T5_TOKENS, _QWEN_TOKENS = 77, 512, 512
_BPE, _SENTENCEPIECE = ("vocab.json", "merges.txt"), ("spiece.model",)


@dataclass(frozen=True, slots=True)
class _Kind:
    """One family of text encoders, as transformers calls it and as its files do.

    Attributes:
        net: class of the network.
        config: class of its settings.
        model_type: what `config.json` says of itself.
        width: the setting that is the width of what it says.
        prefix: what may stand before every key of a file.
        unused: keys that a file may have and that nothing needs.
        tied: keys of one and the same tensor, of which a file may have only one.
        blocks: where its blocks are, if it is too large to be in memory in float32.
    """

    net: str
    config: str
    model_type: str
    width: str = "hidden_size"
    prefix: str = ""
    unused: tuple[str, ...] = ()
    tied: tuple[str, ...] = ()
    blocks: str = ""


# Before version 5 transformers had the prefix in its own networks of CLIP too; early files hold positions.
_CLIP = _Kind(
    "CLIPTextModel",
    "CLIPTextConfig",
    "clip_text_model",
    prefix="text_model.",
    unused=("embeddings.position_ids",),
)
_QWEN3 = _Kind(
    "Qwen3Model", "Qwen3Config", "qwen3", prefix="model.", unused=("lm_head.weight",), blocks="layers"
)
_T5 = _Kind(
    "T5EncoderModel",
    "T5Config",
    "t5",
    width="d_model",
    tied=("shared.weight", "encoder.embed_tokens.weight"),
    blocks="encoder.block",
)


def sd21_prompt(text_encoder: Path, tokenizer: Path | None = None, text: str = "") -> dict[str, Tensor]:
    """What the text encoder of Stable Diffusion 2 says to a prompt: tensor `prompt` (77,1024) float32.

    The tokens are those of open_clip, with which it was trained: start, words, end, and then zeros. (Stable
    Diffusion 1 fills up with ends.) Words that do not fit are cut off. Nothing is masked, and the last layer
    is normalised. As diffusers' `StableDiffusionPipeline.encode_prompt`.

    Args:
        text_encoder: `text_encoder/` of the pipeline.
        tokenizer: `tokenizer/` of the pipeline; an empty prompt needs none.
        text: the prompt.

    Raises:
        ConfigError: if there are words and no tokenizer.
        WeightsNotFound: if a folder lacks what it should hold.
        WeightsError: if one holds another text encoder or tokenizer, or a damaged one.
        KeyMismatch: if the weights do not fit the config.
    """
    if text and tokenizer is None:
        raise ConfigError(f"the prompt {text!r} has words, for which the tokenizer is needed")
    net = _load(text_encoder, _CLIP, width=1024)
    if tokenizer is None:
        start, end = net.config.vocab_size - 2, net.config.vocab_size - 1
        tokens = torch.tensor([[start, end] + [0] * (_CLIP_TOKENS - 2)])
    else:
        words = _tokenizer(tokenizer, "CLIPTokenizerFast", _BPE)
        tokens = _tokens(words, text, net, tokenizer, fill=_CLIP_TOKENS)
    with torch.no_grad():
        said = net(input_ids=tokens).last_hidden_state
    return {PROMPT_KEY: _finite(said[0], text_encoder)}


def zimage_prompt(text_encoder: Path, tokenizer: Path, text: str = "") -> dict[str, Tensor]:
    """What the text encoder of Z-Image says to a prompt: tensor `prompt` (L,2560) float32.

    The prompt stands in Qwen3's template of a conversation, which asks for an answer with thinking. The
    hidden state before the last is taken. As diffusers' `ZImagePipeline.encode_prompt` within 1e-5: that one
    fills up to 512 tokens, which no token before them sees, and drops what it says to those.

    Args:
        text_encoder: `text_encoder/` of the pipeline.
        tokenizer: `tokenizer/` of the pipeline.
        text: the prompt.

    Raises:
        ConfigError: if the prompt is longer than 512 tokens.
        WeightsNotFound: if a folder lacks what it should hold.
        WeightsError: if one holds another text encoder or tokenizer, or a damaged one.
        KeyMismatch: if the weights do not fit the config.
    """
    words = _tokenizer(tokenizer, "Qwen2TokenizerFast", _BPE)
    talk = [{"role": "user", "content": text}]
    try:
        asked = words.apply_chat_template(
            talk, tokenize=False, add_generation_prompt=True, enable_thinking=True
        )
    except Exception as error:  # none, or one that is no template: jinja2 has many words for it
        raise WeightsError(f"{tokenizer} has no usable template of a conversation: {error}") from error
    count = len(words(asked).input_ids)
    if count > _QWEN_TOKENS:
        raise ConfigError(f"the prompt has {count} tokens with its template, and {_QWEN_TOKENS} is the most")
    net = _load(text_encoder, _QWEN3, width=2560)
    tokens = _tokens(words, asked, net, tokenizer)
    with torch.no_grad():
        said = net(input_ids=tokens, output_hidden_states=True).hidden_states[-2]
    return {PROMPT_KEY: _finite(said[0], text_encoder)}


def flux_prompt(
    text_encoder: Path, tokenizer: Path, text_encoder_2: Path, tokenizer_2: Path
) -> dict[str, Tensor]:
    """What the two text encoders of FLUX.1 say to no words, in float32.

    CLIP's summary is the tensor `pooled_prompt_embeds` (768,), what T5 says to 512 tokens is `prompt_embeds`
    (512,4096). Nothing is masked. As diffusers' `FluxPipeline.encode_prompt`.

    Args:
        text_encoder: `text_encoder/` of the pipeline, CLIP.
        tokenizer: `tokenizer/` of the pipeline.
        text_encoder_2: `text_encoder_2/` of the pipeline, T5.
        tokenizer_2: `tokenizer_2/` of the pipeline.

    Raises:
        WeightsNotFound: if a folder lacks what it should hold.
        WeightsError: if one holds another text encoder or tokenizer, or a damaged one.
        KeyMismatch: if the weights do not fit the config.
    """
    pooled = _clip_summary(text_encoder, tokenizer)
    return {"prompt_embeds": _t5_answer(text_encoder_2, tokenizer_2), "pooled_prompt_embeds": pooled}


@torch.no_grad()
def _clip_summary(text_encoder: Path, tokenizer: Path) -> Tensor:
    words = _tokenizer(tokenizer, "CLIPTokenizerFast", _BPE)
    net = _load(text_encoder, _CLIP, width=768)
    tokens = _tokens(words, "", net, tokenizer, fill=_CLIP_TOKENS)
    return _finite(net(tokens).pooler_output[0], text_encoder)


@torch.no_grad()
def _t5_answer(text_encoder: Path, tokenizer: Path) -> Tensor:
    words = _tokenizer(tokenizer, "T5TokenizerFast", _SENTENCEPIECE)
    net = _load(text_encoder, _T5, width=4096)
    tokens = _tokens(words, "", net, tokenizer, fill=_T5_TOKENS)
    return _finite(net(tokens).last_hidden_state[0], text_encoder)


def _load(folder: Path, kind: _Kind, *, width: int) -> Any:
    """A text encoder in eval mode, on the CPU, that computes in float32."""
    net = _empty(folder, kind, width)
    state: dict[str, Tensor] = {}
    for path in weight_files(folder, "transformers"):
        for key, tensor in read_tensors(path, dtype=None if kind.blocks else torch.float32).items():
            state[key.removeprefix(kind.prefix)] = tensor
    for key in kind.unused:
        state.pop(key, None)
    shared = [state[key] for key in kind.tied if key in state]
    if shared:
        state = dict.fromkeys(kind.tied, shared[0]) | state
    if next(iter(net.state_dict())).startswith(kind.prefix):
        state = {kind.prefix + key: tensor for key, tensor in state.items()}
    check_keys(net, state, str(folder))
    if not all(tensor.is_floating_point() for tensor in state.values()):
        raise WeightsError(f"{folder} is quantised; take it in bfloat16 or float32, as it was published")
    net.load_state_dict(state, assign=True)
    _fill_tables(net, folder)
    if kind.blocks:
        _widen(net, list(net.get_submodule(kind.blocks)))
    return net.eval()


def _empty(folder: Path, kind: _Kind, width: int) -> Any:
    """The network that a config describes, without memory for its weights."""
    import transformers

    path = folder / "config.json"
    config = read_json(path, "give the folder of a pipeline")
    if config.get("model_type") != kind.model_type:
        raise WeightsError(f"{path} describes {config.get('model_type')!r}, no {kind.model_type}")
    if config.get(kind.width) != width:
        raise WeightsError(
            f"{path} is of another model: its text encoder has the width {config.get(kind.width)!r}, and "
            f"{width} is needed"
        )
    try:
        settings = getattr(transformers, kind.config)(**config)
        settings._attn_implementation = None  # it could name code on a hub
        with torch.device("meta"):
            return getattr(transformers, kind.net)(settings)
    except Exception as error:  # each version of transformers checks other things, in its own words
        raise WeightsError(f"{path} describes no {kind.net}: {error}") from error


def _fill_tables(net: Any, folder: Path) -> None:
    """Compute the tables that a network without memory lacks and that no file holds."""
    for module in net.modules():
        if hasattr(module, "position_ids"):  # of CLIP
            module.position_ids = torch.arange(module.position_ids.shape[-1])[None]
    if hasattr(net, "rotary_emb"):  # of Qwen3
        net.rotary_emb = type(net.rotary_emb)(net.config)
    empty = [
        name
        for name, tensor in (*net.named_parameters(), *net.named_buffers())
        if tensor.device.type == "meta"
    ]
    if empty:
        raise WeightsError(
            f"{folder}: the installed transformers wants {', '.join(empty)}, which no file has"
        )


def _widen(net: nn.Module, blocks: list[nn.Module]) -> None:
    """Let a network whose weights are stored in fewer bits compute in float32, one block at a time.

    A copy of a block's weights lives as long as the block computes; all others stay mapped from the file. A
    CPU without bfloat16 in hardware computes in it seven times as slowly as in float32 (a layer of T5 on one
    core), and every CPU less exactly.
    """
    stored: dict[nn.Module, list[Tensor]] = {}

    def begin(block: nn.Module, inputs: Any) -> None:
        stored[block] = [parameter.data for parameter in block.parameters()]
        block.float()

    def end(block: nn.Module, inputs: Any, output: Any) -> None:
        for parameter, data in zip(block.parameters(), stored.pop(block), strict=True):
            parameter.data = data

    inside = {module for block in blocks for module in block.modules()}
    for module in set(net.modules()) - inside:
        if isinstance(module, nn.Embedding):  # a large table, of which a few rows are read
            module.register_forward_hook(lambda module, inputs, output: output.float())
        else:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.float()
    for block in blocks:
        block.register_forward_pre_hook(begin)
        block.register_forward_hook(end)


def _tokenizer(folder: Path, name: str, vocabulary: tuple[str, ...]) -> Any:
    """A tokenizer from its files alone.

    Args:
        folder: where they are.
        name: class of the tokenizer.
        vocabulary: files that hold it where there is no `tokenizer.json`.
    """
    import transformers

    if not (folder / "tokenizer_config.json").is_file():
        raise WeightsNotFound(f"{folder / 'tokenizer_config.json'} is missing; give the folder of a pipeline")
    require_vocabulary(folder, (("tokenizer.json",), vocabulary))
    try:
        return getattr(transformers, name).from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises Exception itself
        raise WeightsError(f"{folder} holds no {name.removesuffix('Fast')}: {error}") from error


def _tokens(words: Any, text: str, net: Any, folder: Path, *, fill: int | None = None) -> Tensor:
    """Numbers of tokens (1,L), filled up to `fill` of them with the tokenizer's own filler."""
    padding = {} if fill is None else {"padding": "max_length", "max_length": fill, "truncation": True}
    tokens = words(text, return_tensors="pt", **padding).input_ids
    largest = int(tokens.max())
    if largest >= net.config.vocab_size:
        raise WeightsError(
            f"{folder} is of another model: it counts tokens up to {largest}, and the text encoder knows "
            f"{net.config.vocab_size}"
        )
    return tokens


def _finite(said: Tensor, folder: Path) -> Tensor:
    if not said.isfinite().all():
        raise WeightsError(f"{folder} answers with numbers that are not finite; get it again")
    return said
