"""CLIP's descriptions of pictures, from a folder with both towers as it was published."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from facerestore.core.errors import KeyMismatch, ShapeError, WeightsError
from facerestore.features.clip import TOWER, WEIGHT, ClipImage
from facerestore.weights.seeded import fill_seeded
from facerestore.weights.store import WeightStore

# What the published config says besides the sizes that count.
LEFTOVERS = {"torch_dtype": None, "top_k": 50, "use_bfloat16": False, "_name_or_path": "", "dropout": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPConfig, CLIPModel

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=sizes | {"vocab_size": 100, "projection_dim": 16},
        vision_config=sizes | {"image_size": 32, "patch_size": 8, "projection_dim": 16},
        projection_dim=16,
    )
    net = CLIPModel(config)
    fill_seeded(net)
    place = tmp_path_factory.mktemp("hub") / "clip"
    net.save_pretrained(place)
    written = json.loads((place / "config.json").read_text())
    written["vision_config"] |= LEFTOVERS
    (place / "config.json").write_text(json.dumps(written))
    tensors = load_file(place / "model.safetensors")
    tensors["vision_model.embeddings.position_ids"] = torch.arange(17)[None]  # early files have it
    save_file(tensors, place / "model.safetensors")
    return place


def test_a_published_folder_says_what_transformers_says(folder: Path) -> None:
    from transformers import CLIPVisionModelWithProjection

    clip = ClipImage.load(WeightStore(paths={WEIGHT: folder}))
    assert not clip.training and not any(p.requires_grad for p in clip.parameters())
    official = CLIPVisionModelWithProjection.from_pretrained(folder).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    with torch.no_grad():
        expected = official((images - mean) / std).image_embeds
        found = clip(images)
    torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))


def test_the_middle_is_what_their_processor_cuts_out() -> None:
    from transformers import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pixels = torch.nn.functional.interpolate(torch.rand(1, 3, 9, 12), (72, 96), mode="bilinear")
    clip, seen = ClipImage.tiny(), []
    clip.net.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    eight_bits = (pixels * 255).round().byte()
    with torch.no_grad():
        clip(eight_bits / 255)
    picture = Image.fromarray(np.asarray(eight_bits[0].permute(1, 2, 0)))
    expected = processor(picture, return_tensors="pt")["pixel_values"]
    assert seen[0].shape == expected.shape == (1, 3, 32, 32)
    torch.testing.assert_close(seen[0], expected, atol=1.5 / 255 / 0.26, rtol=0)


def test_batches_and_gradients() -> None:
    clip, images = ClipImage.tiny(), torch.rand(2, 3, 40, 48, requires_grad=True)
    said = clip(images)
    torch.testing.assert_close(clip(images[1:]), said[1:], atol=1e-6, rtol=0)
    said[:, 0].sum().backward()
    assert images.grad is not None and (images.grad.flatten(1).abs().amax(1) > 0).all()
    with pytest.raises(ShapeError):
        clip(torch.rand(3, 32, 32))


def test_other_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    store = WeightStore(paths={WEIGHT: tmp_path})
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(WeightsError, match="describes no CLIPVisionModelWithProjection"):
        ClipImage.load(store)
    (tmp_path / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(KeyMismatch, match=r"visual_projection\.weight"):
        ClipImage.load(store)
    assert TOWER.model_type == "clip"
