"""What a stage is made of is written as its ecosystem writes it, and read again: not a bit changes."""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import facerestore as fr
from facerestore.diffusion import backbones
from facerestore.diffusion.attached import adapter_of, attach, export_diffusers, export_peft
from facerestore.diffusion.components import component
from facerestore.diffusion.configs import TINY_SD_VAE
from facerestore.recipes import get, list_recipes
from facerestore.stages.compose import Chain
from facerestore.stages.one_step import OneStepConfig
from facerestore.weights.names import resolve
from facerestore.weights.store import WeightStore
from tests.made.downloads import ONE_STEP, WRITERS, Download, restored, write

# What makes a configuration one without published adapters.
PLAIN: dict[str, dict[str, Any]] = {
    "osdface": {"lora": None},
    "omgsr-s": {"vae_lora": None, "unet_lora": None},
    "omgsr-f": {"vae_lora": None, "transformer_lora": None},
    "osediff": {"adapter": None},
    "pisa-sr": {"adapter": None},
    "tadsr": {"adapter": None},
    "sdface": {"lora": None},
    "ntire2026/honoraicamera": {"adapters": ()},
}


def one_step(name: str) -> Iterator[OneStepConfig]:
    """The one-step stages of a recipe."""
    recipe = get(name)
    assert isinstance(recipe.stage, Chain.Config)
    yield from (stage for stage in recipe.stage.stages if isinstance(stage, OneStepConfig))


def test_every_one_step_stage_is_here() -> None:
    kinds = {type(stage) for info in list_recipes() for stage in one_step(info.name)}
    assert kinds == {type(stage) for name in ONE_STEP for stage in one_step(name)}
    assert set(PLAIN) == set(ONE_STEP)
    assert {info.name for info in list_recipes() if any(one_step(info.name))} == set(WRITERS)


def network(stage: Any) -> Any:
    """The one that is asked."""
    return stage.transformer if hasattr(stage, "transformer") else stage.unet


def shown(stage: Any) -> torch.Tensor:
    """What it makes of a picture from weights in memory: where a file has them, they may lie unaligned, and
    then kernels add up in another order."""
    return restored(copy.deepcopy(stage))


def without_adapters(name: str, download: Download, **networks: Path) -> Download:
    """The same recipe with no published adapters, and other networks."""
    assert isinstance(download.recipe.stage, Chain.Config)
    first, *others = download.recipe.stage.stages
    plain: Any = replace(first, **PLAIN[name])
    recipe = replace(download.recipe, stage=Chain.Config(stages=(plain, *others)))
    parts = {part for weight in recipe.weights() for part in (weight, *weight.split("/"))} | {"base"}
    given = {key: path for key, path in download.weights.items() if key in parts}
    return Download(recipe, given | {plain.files()[0]: networks["net"], plain.vae: networks["vae"]})


def merged_time_vae(download: Download) -> Any:
    """TADSR's autoencoder, adapter and time layers merged, before it is folded for one timestep."""
    store = WeightStore(paths=resolve(download.weights, download.recipe.weights()))
    (config, *_) = one_step("tadsr")
    _, of_vae = config.read_pieces(store, "tadsr/weights", "unet", "vae")
    name, pieces = "tadsr/time-vae", [(of_vae, 2.0)]
    return component(store, name, backbones.time_vae, TINY_SD_VAE, dtype=torch.float32, pieces=pieces)


@pytest.fixture(scope="module", params=PLAIN)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Download]:
    return request.param, write(request.param, tmp_path_factory.mktemp("download"))


def test_merged_networks_saved_whole_are_the_same_stage(made: tuple[str, Download], tmp_path: Path) -> None:
    """Adapters go in, folders of diffusers come out, and those alone give the same picture."""
    name, download = made
    whole = {"fold": False} if name == "ntire2026/honoraicamera" else {}
    stage = download.restorer(**whole)
    places = {part: tmp_path / "saved" / part for part in ("net", "vae")}
    network(stage).save_pretrained(places["net"])
    vae = merged_time_vae(download) if name == "tadsr" else stage.codec.vae
    vae.save_pretrained(places["vae"])
    if name == "tadsr":  # diffusers has no such class to name
        config = places["vae"] / "config.json"
        settings = json.loads(config.read_text()) | {"_class_name": "TimeAwareAutoencoderKL"}
        config.write_text(json.dumps(settings))
    again = without_adapters(name, download, **places)
    picture = shown(stage)
    assert picture.std() > 0.1
    atol = 1e-5 if name == "tadsr" else 0  # what is folded for a timestep is computed where the file has it
    torch.testing.assert_close(shown(again.restorer(**whole)), picture, atol=atol, rtol=0)
    if whole:
        assert torch.equal(shown(again.restorer()), shown(download.restorer()))


def test_an_exported_adapter_of_ones_own_loads_in_both_forms(
    made: tuple[str, Download], tmp_path: Path
) -> None:
    name, download = made
    config = next(iter(one_step(name)))
    files = resolve(download.weights, download.recipe.weights())
    net = backbones.load_component(files[str(config.files()[0])])
    attach(net, rank=3, alpha=6, targets=["to_q", "to_v"])
    for parameter in (p for p in net.parameters() if p.requires_grad):
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 4
    said = {key: str(value) for key, value in config.made_for().items()} | {
        "base": str(config.files()[0]).partition("/")[0]
    }
    component_name = str(config.files()[0]).rpartition("/")[2]
    forms = [
        export_peft(adapter_of(net), tmp_path / "peft", **said),
        export_diffusers(adapter_of(net), tmp_path / "diffusers", component=component_name, **said),
    ]
    options: Any = {"weights": download.weights, "device": "cpu", "dtype": "fp32", "offload": "none"}
    peft, diffusers = (
        restored(fr.load(download.recipe, adapters=[form], settings=scale, **options).stage.stages[0])  # type: ignore[attr-defined]
        for form, scale in zip(forms, ({}, {"stage.stages.0.adapter_scale": 1.0}), strict=True)
    )
    torch.testing.assert_close(peft, diffusers, atol=1e-5, rtol=0)
    assert (peft - restored(download.restorer())).abs().max() > 1e-3
