"""Constant prompts are what the pipelines of diffusers make of the same text encoders, in float32."""

import gc
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from diffusers import FluxPipeline, StableDiffusionPipeline, ZImagePipeline
from safetensors.torch import load_file, save_file

from facerestore.core.errors import ConfigError, KeyMismatch, WeightsError, WeightsNotFound
from facerestore.diffusion.prompts import flux_prompt, sd21_prompt, zimage_prompt

Files = dict[str, torch.Tensor]
PARTS = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")


def sd21(pipelines: Path) -> torch.Tensor:
    return sd21_prompt(pipelines / "sd21" / "text_encoder")["prompt"]


def zimage(pipelines: Path, text: str = "") -> torch.Tensor:
    return zimage_prompt(*(pipelines / "zimage" / part for part in PARTS[:2]), text=text)["prompt"]


def flux(pipelines: Path) -> Files:
    return flux_prompt(*(pipelines / "flux" / part for part in PARTS))


def close(said: torch.Tensor, wanted: torch.Tensor) -> None:
    """Bit for bit they need not be: where a tensor lies in its file decides which kernels add it up."""
    torch.testing.assert_close(said, wanted, atol=1e-6, rtol=1e-5)


def theirs(kind: str, folder: Path) -> Any:
    """A network in float32, or a tokenizer, as transformers loads it."""
    made = getattr(transformers, kind).from_pretrained(folder, dtype="auto", local_files_only=True)
    return made.float() if kind.endswith("Model") or kind.endswith("LM") else made


def pipeline_says(pipelines: Path, text: str = "") -> torch.Tensor:
    """The prompt by Z-Image's own pipeline."""
    net = theirs("Qwen3Model", pipelines / "zimage" / "text_encoder")
    words = theirs("Qwen2Tokenizer", pipelines / "zimage" / "tokenizer")
    with torch.no_grad():
        said, _ = ZImagePipeline(None, None, net, words, None).encode_prompt(
            text, device="cpu", do_classifier_free_guidance=False
        )
    return said[0]


def rewrite(folder: Path, change: Callable[[Files], Files | None]) -> None:
    """Change the tensors of a folder."""
    path = folder / "model.safetensors"
    state = load_file(path)
    save_file(change(state) or state, path, metadata={"format": "pt"})


def reconfigure(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("text", ["a b a", "b " * 100], ids=["words", "too many words"])
def test_stable_diffusion_with_words_says_what_its_pipeline_says(made_pipelines: Path, text: str) -> None:
    folder = made_pipelines / "sd21"
    said = sd21_prompt(folder / "text_encoder", folder / "tokenizer", text)["prompt"]
    close(said, sd21_pipeline_says(made_pipelines, text))
    assert not torch.equal(said, sd21(made_pipelines))
    close(sd21_prompt(folder / "text_encoder", folder / "tokenizer")["prompt"], sd21(made_pipelines))
    with pytest.raises(ConfigError, match="for which the tokenizer is needed"):
        sd21_prompt(folder / "text_encoder", text=text)


def sd21_pipeline_says(pipelines: Path, text: str = "") -> torch.Tensor:
    """The prompt by Stable Diffusion's own pipeline."""
    folder = pipelines / "sd21"
    net, words = (
        theirs("CLIPTextModel", folder / "text_encoder"),
        theirs("CLIPTokenizer", folder / "tokenizer"),
    )
    pipeline = StableDiffusionPipeline(None, net, words, None, None, None, None)
    with torch.no_grad():
        return pipeline.encode_prompt(text, "cpu", 1, False)[0][0]


def test_stable_diffusion_is_told_start_end_and_zeros(made_pipelines: Path) -> None:
    said = sd21(made_pipelines)
    assert said.shape == (77, 1024) and said.dtype == torch.float32
    close(said, sd21_pipeline_says(made_pipelines))


def test_stable_diffusion_with_the_names_of_older_files(pipelines: Path) -> None:
    wanted = sd21(pipelines)

    def as_transformers_4_wrote_it(state: Files) -> Files:
        old = {f"text_model.{key.removeprefix('text_model.')}": tensor for key, tensor in state.items()}
        return old | {"text_model.embeddings.position_ids": torch.arange(77)[None]}

    rewrite(pipelines / "sd21" / "text_encoder", as_transformers_4_wrote_it)
    close(sd21(pipelines), wanted)


def store_as(folder: Path, dtype: torch.dtype) -> None:
    """Write the tensors of a text encoder in another dtype, as its `config.json` says then."""
    rewrite(folder, lambda state: {key: tensor.to(dtype) for key, tensor in state.items()})
    reconfigure(folder / "config.json", dtype=str(dtype).removeprefix("torch."))


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)


@pytest.mark.parametrize("text", ["", "a photo of a face, \n<|im_end|> 家"], ids=["empty", "face"])
@DTYPES
def test_zimage_says_what_its_pipeline_says(pipelines: Path, text: str, dtype: torch.dtype) -> None:
    store_as(pipelines / "zimage" / "text_encoder", dtype)
    said, wanted = zimage(pipelines, text), pipeline_says(pipelines, text)
    assert said.dtype == torch.float32 and said.shape[1] == 2560 and len(said) > 10
    close(said, wanted)


def test_zimage_as_its_folder_is_published(pipelines: Path) -> None:
    """In shards, under the names of the whole language model, with a head that is not needed."""
    folder, wanted = pipelines / "zimage" / "text_encoder", zimage(pipelines)

    def whole(state: Files) -> Files:
        head = torch.zeros_like(state["embed_tokens.weight"])
        return {f"model.{key}": tensor for key, tensor in state.items()} | {"lm_head.weight": head}

    rewrite(folder, whole)
    net = theirs("Qwen3ForCausalLM", folder)
    (folder / "model.safetensors").unlink()
    net.save_pretrained(folder, max_shard_size="1MB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    close(zimage(pipelines), wanted)


@DTYPES
def test_flux_says_what_its_pipeline_says(pipelines: Path, dtype: torch.dtype) -> None:
    folder = pipelines / "flux"
    for part in ("text_encoder", "text_encoder_2"):
        store_as(folder / part, dtype)
    clip, t5 = theirs("CLIPTextModel", folder / PARTS[0]), theirs("T5EncoderModel", folder / PARTS[2])
    words, words_2 = theirs("CLIPTokenizer", folder / PARTS[1]), theirs("T5Tokenizer", folder / PARTS[3])
    with torch.no_grad():
        wanted, pooled, _ = FluxPipeline(None, None, clip, words, t5, words_2, None).encode_prompt(
            "", device="cpu"
        )
    said = flux(pipelines)
    assert said.keys() == {"prompt_embeds", "pooled_prompt_embeds"}
    assert said["prompt_embeds"].shape == (512, 4096) and said["pooled_prompt_embeds"].shape == (768,)
    close(said["prompt_embeds"], wanted[0])
    close(said["pooled_prompt_embeds"], pooled[0])
    assert {tensor.dtype for tensor in said.values()} == {torch.float32}


@pytest.mark.parametrize("kept", ["shared.weight", "encoder.embed_tokens.weight"])
def test_t5_may_name_its_one_table_either_way(pipelines: Path, kept: str) -> None:
    wanted = flux(pipelines)["prompt_embeds"]

    def renamed(state: Files) -> Files:
        table = state.pop("shared.weight")
        state.pop("encoder.embed_tokens.weight", None)
        return state | {kept: table}

    rewrite(pipelines / "flux" / "text_encoder_2", renamed)
    close(flux(pipelines)["prompt_embeds"], wanted)


def megabytes(name: str) -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith(name)).split()[1]) / 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc")
def test_a_large_text_encoder_is_never_whole_in_memory(pipelines: Path) -> None:
    """Eight blocks of 31 MB in bfloat16: its pages of the file, and one block in float32."""
    folder = pipelines / "zimage" / "text_encoder"
    reconfigure(folder / "config.json", intermediate_size=2048, num_hidden_layers=8, layer_types=None)
    config = transformers.Qwen3Config.from_pretrained(folder)
    with torch.device("meta"):
        net = transformers.Qwen3Model(config).bfloat16()
    zeros = {key: torch.zeros(tensor.shape, dtype=torch.bfloat16) for key, tensor in net.state_dict().items()}
    save_file(zeros, folder / "model.safetensors")
    del zeros
    size = (folder / "model.safetensors").stat().st_size / 2**20
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = megabytes("VmRSS")
    zimage(pipelines)
    peak = megabytes("VmHWM") - before
    block = 2 * size / 8
    assert size > 240 and peak < size + 1.5 * block  # and not 3 * size


SAY: dict[str, Callable[[Path], Any]] = {"sd21": sd21, "zimage": zimage, "flux": flux}
ENCODERS = ["sd21/text_encoder", "zimage/text_encoder", "flux/text_encoder", "flux/text_encoder_2"]
TOKENIZERS = ["zimage/tokenizer", "flux/tokenizer", "flux/tokenizer_2"]


def say(pipelines: Path, part: str) -> Any:
    return SAY[part.partition("/")[0]](pipelines)


@pytest.mark.parametrize("part", ENCODERS)
def test_half_a_text_encoder_is_refused(pipelines: Path, part: str) -> None:
    folder = pipelines / part
    state = load_file(folder / "model.safetensors")
    key = next(key for key in state if "layer" in key and key.endswith("weight"))
    rewrite(folder, lambda state: {name: tensor for name, tensor in state.items() if name != key})
    with pytest.raises(KeyMismatch, match=f"1 missing .*{key.removeprefix('text_model.')}"):
        say(pipelines, part)
    save_file(state | {"more": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(KeyMismatch, match=r"1 unexpected .*more"):
        say(pipelines, part)
    save_file(state | {key: torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(KeyMismatch, match="1 misshapen"):
        say(pipelines, part)
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsNotFound, match="holds none of model"):
        say(pipelines, part)


@pytest.mark.parametrize("part", ENCODERS)
def test_another_text_encoder_is_refused_before_it_is_read(pipelines: Path, part: str) -> None:
    path = pipelines / part / "config.json"
    (pipelines / part / "model.safetensors").write_bytes(b"never looked at")
    width = "d_model" if part.endswith("2") else "hidden_size"
    settings = json.loads(path.read_text())
    reconfigure(path, **{width: 1280})
    with pytest.raises(WeightsError, match=r"another model: .* 1280, and (1024|2560|768|4096) is needed"):
        say(pipelines, part)
    reconfigure(path, **settings | {"model_type": "bert"})
    with pytest.raises(WeightsError, match=r"describes 'bert', no (clip_text_model|qwen3|t5)"):
        say(pipelines, part)
    layers = "num_layers" if part.endswith("2") else "num_hidden_layers"
    reconfigure(path, **settings | {layers: "many"})
    with pytest.raises(WeightsError, match=r"describes no \w+Model"):
        say(pipelines, part)
    path.write_text("{")
    with pytest.raises(WeightsError, match="cannot be read"):
        say(pipelines, part)
    path.unlink()
    with pytest.raises(WeightsNotFound, match=r"config\.json is missing"):
        say(pipelines, part)


@pytest.mark.parametrize("part", TOKENIZERS)
def test_a_tokenizer_that_is_none_is_refused(pipelines: Path, part: str) -> None:
    folder = pipelines / part
    damaged = next(folder / name for name in ("tokenizer.json", "vocab.json") if (folder / name).exists())
    damaged.write_text("{")
    with pytest.raises(WeightsError, match=r"holds no \w+Tokenizer"):
        say(pipelines, part)
    damaged.unlink()
    with pytest.raises(WeightsNotFound, match=r"no vocabulary: tokenizer\.json, or "):
        say(pipelines, part)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(WeightsNotFound, match=r"tokenizer_config\.json is missing"):
        say(pipelines, part)


def test_a_tokenizer_of_another_model_is_refused(pipelines: Path) -> None:
    folder = pipelines / "zimage" / "text_encoder"
    reconfigure(folder / "config.json", vocab_size=200)
    rewrite(folder, lambda state: state | {"embed_tokens.weight": state["embed_tokens.weight"][:200].clone()})
    with pytest.raises(WeightsError, match=r"tokenizer is of another model: .*258, .* knows 200"):
        zimage(pipelines)


@pytest.mark.parametrize("template", [None, "{{ broken", "{{ raise_exception('no') }}", "{{ 1 / 0 }}"])
def test_a_tokenizer_without_a_template_is_refused(pipelines: Path, template: str | None) -> None:
    folder = pipelines / "zimage" / "tokenizer"
    (folder / "chat_template.jinja").unlink()
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(WeightsError, match="no usable template"):
        zimage(pipelines)


def test_a_prompt_that_would_be_cut_is_refused(made_pipelines: Path) -> None:
    spare = 512 - len(zimage(made_pipelines))
    assert len(zimage(made_pipelines, "x" * spare)) == 512
    with pytest.raises(ConfigError, match=r"513 tokens .* 512 is the most"):
        zimage(made_pipelines, "x" * (spare + 1))


def test_what_computes_nothing_is_refused(pipelines: Path) -> None:
    folder = pipelines / "sd21" / "text_encoder"
    key = "final_layer_norm.weight"

    def broken(state: Files) -> Files:
        return state | {name: tensor * float("nan") for name, tensor in state.items() if name.endswith(key)}

    rewrite(folder, broken)
    with pytest.raises(WeightsError, match="not finite"):
        sd21(pipelines)
    rewrite(folder, lambda state: {name: tensor.to(torch.int8) for name, tensor in state.items()})
    with pytest.raises(WeightsError, match="quantised"):
        sd21(pipelines)


def test_a_folder_runs_no_code_and_asks_no_hub(pipelines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*arguments: Any, **options: Any) -> None:
        raise AssertionError(f"a connection was tried: {arguments}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_OFFLINE", "FACERESTORE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    wanted, folder = zimage(pipelines), pipelines / "zimage"
    trap = f"from pathlib import Path\nPath({str(pipelines / 'ran')!r}).touch()\n"
    for part in ("text_encoder", "tokenizer"):
        (folder / part / "trap.py").write_text(trap)
    classes = {"AutoConfig": "trap.A", "AutoModel": "trap.B", "AutoTokenizer": ["trap.C", "trap.C"]}
    code = {"auto_map": classes, "trust_remote_code": True}
    kernels = {"attn_implementation": "kernels-community/flash-attn2", "_attn_implementation": "evil/kernel"}
    reconfigure(folder / "text_encoder" / "config.json", **code, **kernels)
    reconfigure(folder / "tokenizer" / "tokenizer_config.json", **code)
    close(zimage(pipelines), wanted)
    assert not (pipelines / "ran").exists()


def test_no_random_number_is_drawn(made_pipelines: Path) -> None:
    before = torch.get_rng_state()
    sd21(made_pipelines), zimage(made_pipelines), flux(made_pipelines)
    assert torch.equal(torch.get_rng_state(), before)
