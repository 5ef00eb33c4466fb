"""Weights that do not belong together are refused by name: what came, what was wanted, what to do."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import facerestore as fr
from facerestore.core.errors import ConfigError, FaceRestoreError, KeyMismatch
from facerestore.diffusion import backbones, configs
from facerestore.diffusion.attached import adapter_of, attach, export_peft
from facerestore.stages.compose import Chain
from facerestore.stages.one_step import OneStepConfig
from facerestore.weights.names import resolve
from facerestore.weights.store import WeightStore
from tests.made.downloads import ONE_STEP, Download, write
from tests.made.parts import vivid

Tensors = dict[str, torch.Tensor]
# The weight that holds the adapter of the network.
ADAPTER = {
    "osdface": "osdface/lora",
    "omgsr-s": "omgsr-s/unet-lora",
    "omgsr-f": "omgsr-f/flux-lora",
    "osediff": "osediff/weights",
    "pisa-sr": "pisa-sr/weights",
    "tadsr": "tadsr/weights",
    "sdface": "sdface/lora",
    "ntire2026/honoraicamera": "honoraicamera/stage2",
}


@pytest.fixture(scope="module", params=ONE_STEP)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Download]:
    return request.param, write(request.param, tmp_path_factory.mktemp("download"))


def first(download: Download) -> OneStepConfig:
    stage = download.recipe.stage
    assert isinstance(stage, Chain.Config) and isinstance(stage.stages[0], OneStepConfig)
    return stage.stages[0]


def refused(download: Download, *words: str, **weights: Path) -> FaceRestoreError:
    """The typed error that loading gives with other files; its message has all the words."""
    taken = {name.rpartition("/")[2] for name in weights}
    given = {key: path for key, path in download.weights.items() if key not in taken} | weights
    with pytest.raises((ConfigError, KeyMismatch)) as caught:
        Download(download.recipe, given).load()
    for word in words:
        assert word in str(caught.value)
    return caught.value


# --- another base model -------------------------------------------------------------------------------------

OTHERS: dict[str, Callable[[], Any]] = {
    "stable-diffusion-1.5": lambda: backbones.sd_unet(
        configs.TINY_UNET | {"use_linear_projection": False, "cross_attention_dim": 24}
    ),
    "stable-diffusion-2.1": lambda: backbones.sd_unet(configs.TINY_UNET),
    "inpainting": lambda: backbones.sd_unet(configs.TINY_UNET | {"in_channels": 9}),
    "sdxl": lambda: backbones.sd_unet(configs.TINY_SDXL_UNET),
    "flux": lambda: backbones.flux_transformer(configs.TINY_FLUX_TRANSFORMER),
    "flux-schnell": lambda: backbones.flux_transformer(
        configs.TINY_FLUX_TRANSFORMER | {"guidance_embeds": False}
    ),
    "z-image": lambda: backbones.zimage_transformer(configs.TINY_ZIMAGE_TRANSFORMER),
    "sd-vae": lambda: backbones.sd_vae(configs.TINY_SD_VAE),
    "sdxl-vae": lambda: backbones.sd_vae(configs.TINY_SDXL_VAE),
    "flux-vae": lambda: backbones.sd_vae(configs.TINY_FLUX_VAE),
    "taesd": lambda: backbones.tiny_vae(configs.TINY_TAESD),
}
# What is given for the network and what for the autoencoder, and what the message says of it.
_SD21 = {
    "net": {
        "stable-diffusion-1.5": "use_linear_projection is False, not True",
        "sdxl": "addition_embed_type is text_time, not None",
        "inpainting": "in_channels is 9, not 4",
        "flux": "has class FluxTransformer2DModel, where UNet2DConditionModel is needed",
        "sd-vae": "has class AutoencoderKL, where UNet2DConditionModel is needed",
    },
    "vae": {
        "sdxl-vae": "scaling_factor is 0.13025, not 0.18215",
        "flux-vae": "latent_channels is 16, not 4",
        "taesd": "has class AutoencoderTiny, where AutoencoderKL is needed",
        "sdxl": "has class UNet2DConditionModel, where AutoencoderKL is needed",
    },
}
_LATENTS_16 = {
    "sd-vae": "latent_channels is 4, not 16",
    "z-image": "has class ZImageTransformer2DModel, where AutoencoderKL is needed",
}
WRONG: dict[str, dict[str, dict[str, str]]] = dict.fromkeys(
    ("osdface", "omgsr-s", "osediff", "pisa-sr"), _SD21
)
WRONG["tadsr"] = {"net": _SD21["net"], "vae": _SD21["vae"] | {"sd-vae": "time_layers is False, not True"}}
WRONG["sdface"] = {
    "net": {
        "stable-diffusion-1.5": "addition_embed_type is None, not text_time",
        "stable-diffusion-2.1": "addition_embed_type is None, not text_time",
    },
    "vae": {"sd-vae": "scaling_factor is 0.18215, not 0.13025", "flux-vae": "latent_channels is 16, not 4"},
}
WRONG["omgsr-f"] = {
    "net": {
        "flux-schnell": "FLUX.1-schnell",
        "z-image": "has class ZImageTransformer2DModel, where FluxTransformer2DModel is needed",
    },
    "vae": _LATENTS_16,
}
WRONG["ntire2026/honoraicamera"] = {
    "net": {"flux": "has class FluxTransformer2DModel, where ZImageTransformer2DModel is needed"},
    "vae": _LATENTS_16,
}


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of networks that do not belong to everything."""
    folder = tmp_path_factory.mktemp("others")
    for name, make in OTHERS.items():
        vivid(make()).save_pretrained(folder / name)
    return {name: folder / name for name in OTHERS}


def test_another_base_model_is_refused_by_what_differs(
    made: tuple[str, Download], others: dict[str, Path]
) -> None:
    name, download = made
    config = first(download)
    for part, weight in (("net", config.files()[0]), ("vae", config.vae)):
        for other, words in WRONG[name][part].items():
            error = refused(download, words, **{str(weight): others[other]})
            assert words == "FLUX.1-schnell" or f"{weight} ({others[other]})" in str(error)
            assert "give" in str(error)


def test_networks_of_another_width_are_refused_by_key_and_shape(
    made: tuple[str, Download], tmp_path: Path
) -> None:
    """What no setting tells apart is seen where the adapter meets it."""
    _, download = made
    weight = str(first(download).files()[0])
    config = json.loads(
        (resolve(download.weights, download.recipe.weights())[weight] / "config.json").read_text()
    )
    wider: dict[str, dict[str, object]] = {
        "UNet2DConditionModel": {"cross_attention_dim": 24},
        "FluxTransformer2DModel": {"num_attention_heads": 4},
        "ZImageTransformer2DModel": {"dim": 64, "n_heads": 4, "n_kv_heads": 4},
    }
    kind = config["_class_name"]
    vivid(backbones._build(kind, config | wider[kind])).save_pretrained(tmp_path)
    error = refused(download, "It was trained on another network: give the base model", **{weight: tmp_path})
    assert re.search(r"expected an update of \(\d+, \d+\), got \(\d+, \d+\)", str(error))
    assert isinstance(error, KeyMismatch) and error.misshapen


# --- adapters that belong to something else -----------------------------------------------------------------


def rewritten(
    download: Download,
    weight: str,
    folder: Path,
    edit: Callable[[Tensors], Tensors] = lambda tensors: tensors,
    **said: object,
) -> Path:
    """A copy of an adapter in its published form, with other tensors and facts about itself."""
    source = resolve(download.weights, download.recipe.weights())[weight]
    copy = folder / source.name
    facts = {key: str(value) for key, value in said.items()}
    if source.is_dir():
        shutil.copytree(source, copy, dirs_exist_ok=True)
        file = copy / "adapter_model.safetensors"
        save_file(edit(load_file(file)), file, facts)
    elif source.suffix == ".safetensors":
        save_file(edit(load_file(source)), copy, facts)
    else:
        content = torch.load(source)
        for part in ("state_dict_unet", "params"):
            if part in content:
                content[part] = edit(content[part])
        torch.save(content | said, copy)
    return copy


def test_an_adapter_that_says_another_noise_level_or_base_is_refused(
    made: tuple[str, Download], tmp_path: Path
) -> None:
    name, download = made
    weight, config = ADAPTER[name], first(download)
    (fact, own), *_ = config.made_for().items()
    other = own / 2 if fact == "sigma" else 123
    for said, words in (
        ({fact: other}, f"made for {fact} {other}, and is to be used with {fact} {own}"),
        ({"base": "stabilityai/sd-turbo"}, "made for base stabilityai/sd-turbo, and is to be used with base"),
    ):
        place = rewritten(download, weight, tmp_path, **said)
        refused(download, weight, str(place), words, "only with what it was trained with", **{weight: place})
    base = config.base_names(WeightStore())
    assert base[0] == str(config.files()[0]).partition("/")[0]
    place = rewritten(download, weight, tmp_path, base=base[-1], **{fact: own})
    config.build(WeightStore(paths=resolve(download.weights, download.recipe.weights()) | {weight: place}))


def one_rank_more(tensors: Tensors) -> Tensors:
    """The same updates with a rank that adds nothing."""

    def padded(key: str, tensor: torch.Tensor) -> torch.Tensor:
        side = 0 if re.search(r"lora_A|lora\.down", key) else 1
        if "lora" not in key:
            return tensor
        return torch.cat([tensor, torch.zeros_like(tensor.narrow(side, 0, 1))], side)

    return {key: padded(key, tensor) for key, tensor in tensors.items()}


def test_a_rank_that_the_scale_does_not_fit_is_refused(made: tuple[str, Download], tmp_path: Path) -> None:
    """Where the file says alpha, by the scale that follows; where it does not, by the rank itself."""
    name, download = made
    weight = ADAPTER[name]
    place = rewritten(download, weight, tmp_path, one_rank_more)
    given = {key: path for key, path in download.weights.items() if key != weight.rpartition("/")[2]}
    with pytest.raises(FaceRestoreError) as caught:
        Download(download.recipe, given | {weight: place}).load()
    message = str(caught.value)
    if place.is_dir():
        assert re.search(r"adapter_config\.json says rank (\d+), but \S+ has shape \(\d+, ", message)
        settings = json.loads((place / "adapter_config.json").read_text())
        settings["r"] += 1
        (place / "adapter_config.json").write_text(json.dumps(settings))
        if name != "ntire2026/honoraicamera":  # whose scale nobody knows but its own file
            rank = settings["r"]
            words = f"expected scale 1, got alpha {rank - 1} / rank {rank}"
            refused(download, weight, words, "if you trained it", **{weight: place})
        return
    assert isinstance(caught.value, KeyMismatch)
    expected = first(download).lora_rank  # type: ignore[attr-defined]
    assert f"expected rank {expected}, got ({expected + 1}," in message
    assert weight in message and str(place) in message and "set both if you trained it" in message


def test_an_alpha_that_contradicts_the_scale_is_refused(made: tuple[str, Download], tmp_path: Path) -> None:
    name, download = made
    weight = ADAPTER[name]
    if name == "ntire2026/honoraicamera":  # nobody published it, so its scale is what file or settings say
        with pytest.raises(KeyMismatch, match=r"expected scale 0\.5, got alpha 16 / rank 16"):
            download.load(adapter_scale=0.5)
        return

    def with_alpha(tensors: Tensors) -> Tensors:
        key = next(key for key in tensors if re.search(r"lora_A|lora\.down", key))
        layer = re.split(r"\.lora", key)[0]
        return tensors | {f"{layer}.alpha": torch.tensor(3.0)}

    place = rewritten(download, weight, tmp_path, with_alpha)
    refused(download, weight, "expected scale", "got alpha 3 / rank", **{weight: place})


def test_an_adapter_of_ones_own_for_something_else_is_refused(
    made: tuple[str, Download], tmp_path: Path
) -> None:
    _, download = made
    config = first(download)
    net = backbones.load_component(
        resolve(download.weights, download.recipe.weights())[str(config.files()[0])]
    )
    attach(net, rank=2, alpha=2, targets=["to_q"])
    (fact, _), *_ = config.made_for().items()
    for said, words in (
        ({"base": "somebody/else"}, "made for base somebody/else"),
        ({"base": config.base_names(WeightStore())[0], fact: "0.123"}, f"made for {fact} 0.123"),
    ):
        folder = export_peft(adapter_of(net), tmp_path / "own", **said)
        with pytest.raises(ConfigError, match=words):
            fr.load(download.recipe, weights=download.weights, adapters=[folder], device="cpu")


@pytest.mark.parametrize(
    ("name", "other"), [("osediff", "pisa-sr"), ("pisa-sr", "osediff"), ("tadsr", "osediff")]
)
def test_the_checkpoint_of_another_restorer_is_refused(name: str, other: str, tmp_path: Path) -> None:
    """Same base, same layers, same rank: what it lacks and what it has too much is named."""
    source = write(other, tmp_path / "other").weights[other] / f"{other.replace('-', '_')}.pkl"
    download = write(name, tmp_path / "own")
    error = refused(download, "does not fit its network", **{ADAPTER[name]: source})
    assert isinstance(error, KeyMismatch) and (error.missing or error.unexpected)
