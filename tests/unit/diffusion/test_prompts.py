"""The empty prompt is what transformers' own text encoder says to the tokens of open_clip."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from facerestore.cli.main import app
from facerestore.core.errors import KeyMismatch, WeightsError, WeightsNotFound
from facerestore.diffusion.constant_prompt import constant_prompt
from facerestore.diffusion.prompts import empty_prompt
from facerestore.weights.store import WeightStore


@pytest.fixture
def encoder(tmp_path: Path) -> tuple[Path, Any]:
    """A tiny text encoder as transformers saves it, and the network."""
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    with torch.random.fork_rng():
        net = CLIPTextModel(CLIPTextConfig(vocab_size=50, projection_dim=32, **sizes)).eval()
    net.save_pretrained(tmp_path / "text_encoder")
    return tmp_path / "text_encoder", net


def test_it_is_what_the_text_encoder_says_to_start_end_and_zeros(encoder: tuple[Path, Any]) -> None:
    folder, net = encoder
    tokens = torch.zeros(1, 77, dtype=torch.int64)
    tokens[0, :2] = torch.tensor([48, 49])
    with torch.no_grad():
        wanted = net(tokens).last_hidden_state[0]
    torch.testing.assert_close(empty_prompt(folder), wanted)
    state = {
        f"text_model.{key.removeprefix('text_model.')}": value for key, value in net.state_dict().items()
    }
    state["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(state, folder / "model.safetensors")  # as transformers 4 wrote it
    torch.testing.assert_close(empty_prompt(folder), wanted)


def test_what_does_not_fit_is_refused(encoder: tuple[Path, Any]) -> None:
    folder, _ = encoder
    state = load_file(folder / "model.safetensors")
    save_file(dict(list(state.items())[1:]), folder / "model.safetensors")
    with pytest.raises(KeyMismatch):
        empty_prompt(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsNotFound, match="holds none of"):
        empty_prompt(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(WeightsError, match="'t5'"):
        empty_prompt(folder)
    (folder / "config.json").unlink()
    with pytest.raises(WeightsNotFound, match="text_encoder/"):
        empty_prompt(folder)


def test_the_command_writes_what_recipes_read(encoder: tuple[Path, Any], tmp_path: Path) -> None:
    out = tmp_path / "prompt-empty.safetensors"
    arguments = ["weights", "prompt", str(encoder[0]), str(out)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    store = WeightStore(paths={"sd21-base/prompt-empty": out})
    prompt = constant_prompt(store, "sd21-base/prompt-empty", tokens=77, width=32)
    assert torch.equal(prompt, empty_prompt(encoder[0]))
    assert CliRunner().invoke(app, arguments).exit_code != 0  # nothing is overwritten
