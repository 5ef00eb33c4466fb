"""Small networks with made weights, the same in every test."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from facerestore.diffusion import backbones, configs
from facerestore.weights.seeded import fill_seeded

# Of Qwen3's form; unlike it, what is not told to think does not: so it matters that it is told.
TEMPLATE = (
    "{% for talk in messages %}{{ '<|im_start|>' + talk.role + '\n' + talk.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if not enable_thinking %}{{ '<think></think>' }}{% endif %}{% endif %}"
)


def seeded(net: nn.Module) -> nn.Module:
    fill_seeded(net)
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def vae() -> nn.Module:
    return seeded(backbones.sd_vae(configs.TINY_SD_VAE))


@pytest.fixture(scope="session")
def taesd() -> nn.Module:
    return seeded(backbones.tiny_vae(configs.TINY_TAESD))


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 64, 48, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def made_pipelines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text encoders and tokenizers of three pipelines as transformers saves them, small except in width."""
    root = tmp_path_factory.mktemp("pipelines")
    _clip_tokenizer(root / "sd21" / "tokenizer", pad="!")
    _save_net("CLIPText", root / "sd21" / "text_encoder", hidden_size=1024, **_CLIP)
    _clip_tokenizer(root / "flux" / "tokenizer", pad="<|endoftext|>")
    _save_net("CLIPText", root / "flux" / "text_encoder", hidden_size=768, **_CLIP)
    _t5_tokenizer(root / "flux" / "tokenizer_2")
    _save_net("T5Encoder", root / "flux" / "text_encoder_2", **_T5)
    _qwen_tokenizer(root / "zimage" / "tokenizer")
    _save_net("Qwen3", root / "zimage" / "text_encoder", **_QWEN)
    return root


@pytest.fixture
def pipelines(made_pipelines: Path, tmp_path: Path) -> Path:
    """The same to be changed."""
    return Path(shutil.copytree(made_pipelines, tmp_path / "pipelines"))


_SMALL: dict[str, Any] = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_CLIP = _SMALL | {
    "vocab_size": 5,
    "projection_dim": 8,
    "bos_token_id": 3,
    "eos_token_id": 4,
    "pad_token_id": 0,
}
_T5 = {"d_model": 4096, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 5}
_T5 |= {"feed_forward_proj": "gated-gelu"}
_QWEN = _SMALL | {"hidden_size": 2560, "head_dim": 16, "num_key_value_heads": 1, "vocab_size": 259}


def _save_net(kind: str, folder: Path, **settings: Any) -> None:
    import transformers

    config = getattr(transformers, f"{kind.removesuffix('Encoder')}Config")(**settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)


def _clip_tokenizer(folder: Path, *, pad: str) -> None:
    """As published: no `tokenizer.json`."""
    folder.mkdir(parents=True)
    words = ("!", "a</w>", "b</w>", "<|startoftext|>", "<|endoftext|>")
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    settings = {"bos_token": words[3], "eos_token": words[4], "unk_token": words[4], "pad_token": pad}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 77}))


def _t5_tokenizer(folder: Path) -> None:
    from transformers import T5Tokenizer

    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁a", -1.0)]
    T5Tokenizer(vocab=words, extra_ids=0).save_pretrained(folder)


def _qwen_tokenizer(folder: Path) -> None:
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    letters = (*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>")
    words = Qwen2Tokenizer(vocab={letter: number for number, letter in enumerate(letters)}, merges=[])
    words.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    words.chat_template = TEMPLATE
    words.save_pretrained(folder)
