"""Maps and summaries of DINOv2 against transformers itself, and folders as they were published."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from facerestore.core.errors import ConfigError, KeyMismatch, ShapeError, WeightsError, WeightsNotFound
from facerestore.features.dinov2 import BASE, SMALL, DinoV2
from facerestore.weights.store import WeightStore


@pytest.fixture(scope="module")
def dino() -> DinoV2:
    return DinoV2.tiny()


@pytest.fixture(scope="module")
def folder(dino: DinoV2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As on the hub: keys of transformers 4, which early and late versions of it write, and its settings."""
    place = tmp_path_factory.mktemp("hub") / SMALL
    dino.net.save_pretrained(place)
    config = json.loads((place / "config.json").read_text())
    config |= {"torch_dtype": "float32", "transformers_version": "4.32.0.dev0"}
    (place / "config.json").write_text(json.dumps(config))
    assert "encoder.layer.0.attention.attention.query.weight" in load_file(place / "model.safetensors")
    return place


def test_maps_are_those_of_transformers(folder: Path, dino: DinoV2) -> None:
    from transformers import Dinov2Backbone

    stages = [f"stage{depth}" for depth in dino.depths]
    backbone = Dinov2Backbone.from_pretrained(folder, out_features=stages)
    images = torch.rand(2, 3, 42, 56, generator=torch.Generator().manual_seed(0))
    normal = (images - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    with torch.no_grad():
        official, ours = backbone(normal).feature_maps, dino(images)
    assert [each.shape for each in ours] == [(2, 32, 3, 4)] * 4
    for one, other in zip(ours, official, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert (ours[0] - ours[3]).abs().mean() > 0.1


def test_a_published_folder_goes_in(folder: Path, dino: DinoV2) -> None:
    loaded = DinoV2.load(WeightStore(paths={SMALL: folder}), depths=(2, 4))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    images = torch.rand(1, 3, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), [dino(images)[1], dino(images)[3]], atol=0, rtol=0)
        torch.testing.assert_close(loaded.summary(images), dino.summary(images), atol=0, rtol=0)


def test_a_batch_is_its_pictures_and_gradients_reach_them(dino: DinoV2) -> None:
    images = torch.rand(2, 3, 42, 42, requires_grad=True)
    maps = dino(images)
    for index in range(2):
        for one, other in zip(dino(images[index : index + 1]), maps, strict=True):
            torch.testing.assert_close(one[0], other[index], atol=1e-5, rtol=0)
    sum(each.square().sum() for each in maps).backward()
    assert images.grad is not None and images.grad.isfinite().all()
    assert (images.grad.flatten(1).abs().amax(1) > 0).all()


def test_sizes_between_patches_are_resized_to_the_nearest(dino: DinoV2) -> None:
    seen: list[torch.Size] = []
    hook = dino.net.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(args[0].shape), with_kwargs=True
    )
    with torch.no_grad():
        for side in (512, 8, 20, 22):
            dino(torch.rand(1, 3, side, 28))
        dino.summary(torch.rand(1, 3, 42, 42))
    hook.remove()
    assert [shape[2:] for shape in seen] == [(518, 28), (14, 28), (14, 28), (28, 28), (42, 42)]


@pytest.mark.parametrize("shape", [(3, 28, 28), (1, 1, 28, 28), (1, 3, 6, 28)])
def test_other_shapes_are_refused(dino: DinoV2, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="at least 7 px"):
        dino(torch.zeros(shape))


def test_making_one_draws_nothing_and_every_time_makes_the_same() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, second = DinoV2.tiny().state_dict(), DinoV2.tiny().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("depths", [(), (0,), (1, 5)])
def test_depths_are_those_of_the_network(dino: DinoV2, depths: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="from 1 to 4"):
        DinoV2(dino.net, depths)


def test_other_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    store = WeightStore(paths={BASE: tmp_path})
    with pytest.raises(WeightsError, match="describes 'vit', no dinov2"):
        DinoV2.load(store, BASE)
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsNotFound, match=r"holds none of model\.safetensors"):
        DinoV2.load(store, BASE)
    tensors = load_file(folder / "model.safetensors")
    del tensors["layernorm.bias"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(KeyMismatch, match=r"1 missing \(layernorm.bias\)"):
        DinoV2.load(store, BASE)
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": "wide"}))
    with pytest.raises(WeightsError, match="describes no Dinov2Model"):
        DinoV2.load(store, BASE)
