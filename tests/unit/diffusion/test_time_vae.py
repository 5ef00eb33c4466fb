"""The time-aware autoencoder."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from facerestore.core.errors import ConfigError, KeyMismatch, WeightsError
from facerestore.diffusion import backbones
from facerestore.diffusion.codec import LatentCodec
from facerestore.diffusion.configs import SD_VAE, TINY_SD_VAE
from facerestore.diffusion.time_vae import encode_at, fold_time, time_keys
from facerestore.diffusion.vae_tiling import VaeTiles
from facerestore.weights.seeded import fill_seeded


def tiny() -> Any:
    """Norms about one, so that everything matters."""
    vae = backbones.time_vae(TINY_SD_VAE).eval()
    fill_seeded(vae)
    for key, tensor in vae.state_dict().items():
        if "norm" in key and key.endswith("weight"):
            tensor.add_(1)
    return vae


def pictures(count: int = 2, height: int = 32, width: int = 48) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_the_full_size_has_the_published_time_layers() -> None:
    with torch.device("meta"):
        vae = backbones.time_vae(SD_VAE)
    keys, state = time_keys(vae), vae.state_dict()
    assert len(keys) == 24 and sum(state[key].numel() for key in keys) == 2_072_576
    assert {key for key in keys if "resnets" not in key} == {
        f"encoder.time_embedding.linear_{i}.{part}" for i in (1, 2) for part in ("weight", "bias")
    }
    assert state["encoder.time_embedding.linear_1.weight"].shape == (256, 128)
    assert state["encoder.down_blocks.3.resnets.1.time_emb_proj.weight"].shape == (1024, 256)
    with torch.device("meta"):
        assert set(state) - set(keys) == set(backbones.sd_vae(SD_VAE).state_dict())


@pytest.mark.parametrize("timestep", [1, 500, 999])
def test_folding_a_timestep_leaves_a_plain_autoencoder_that_says_the_same(timestep: int) -> None:
    vae = tiny()
    with torch.no_grad():
        expected = encode_at(vae, pictures(), torch.full((2,), timestep))
        fold_time(vae, timestep)
        folded = vae.encode(pictures()).latent_dist.parameters
    torch.testing.assert_close(folded, expected, atol=1e-5, rtol=0)
    assert set(vae.state_dict()) == set(backbones.sd_vae(TINY_SD_VAE).state_dict()) and not time_keys(vae)


def test_every_picture_is_encoded_at_its_own_timestep() -> None:
    vae, both = tiny(), pictures()
    with torch.no_grad():
        together = encode_at(vae, both, torch.tensor([1, 999]))
        apart = [encode_at(vae, both[i : i + 1], torch.tensor([t])) for i, t in enumerate((1, 999))]
        other = encode_at(vae, both[:1], torch.tensor([999]))
    torch.testing.assert_close(together, torch.cat(apart), atol=1e-5, rtol=0)
    assert (other - apart[0]).abs().mean() > 1e-2


def test_a_folded_one_works_in_tiles() -> None:
    vae = tiny()
    fold_time(vae, 300)
    image = pictures(1, 128, 96) / 2 + 0.5
    with torch.no_grad():
        whole = LatentCodec.of(vae).encode(image, (0,))
        tiles = VaeTiles(encoder_px=32)
        tiled = LatentCodec(vae, scaling=0.18215, tiles=tiles).encode(image, (0,))
    assert (tiled - whole).abs().mean() < 0.1 * whole.std()


def test_gradients_reach_every_time_layer() -> None:
    vae = tiny()
    encode_at(vae, pictures(), torch.tensor([200, 700])).square().sum().backward()
    own = dict(vae.named_parameters())
    assert all(bool(own[key].grad.abs().sum() > 0) for key in time_keys(vae))


def test_the_published_folder_loads_and_is_left_as_it_was(tmp_path: Path) -> None:
    vae = tiny()
    vae.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    settings |= {"_class_name": "TimeAwareAutoencoderKL", "_diffusers_version": "0.25.0"}
    settings |= {"time_scale_shift": "scale_shift"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    before = (tmp_path / "diffusion_pytorch_model.safetensors").read_bytes()
    loaded: Any = backbones.load_component(tmp_path)
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in vae.state_dict().items())
    fold_time(loaded, 500)
    expected = copy.deepcopy(vae)
    fold_time(expected, 500)
    # not to the last bit: tensors of a mapped file lie at other addresses, which changes the order of sums
    torch.testing.assert_close(
        loaded.encode(pictures()).latent_dist.parameters,
        expected.encode(pictures()).latent_dist.parameters,
        atol=1e-5,
        rtol=0,
    )
    assert (tmp_path / "diffusion_pytorch_model.safetensors").read_bytes() == before

    (tmp_path / "config.json").write_text(json.dumps(settings | {"time_scale_shift": "default"}))
    with pytest.raises(WeightsError, match="only scale_shift"):
        backbones.load_component(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(settings | {"_class_name": "AutoencoderKL"}))
    with pytest.raises(KeyMismatch, match="time_emb"):
        backbones.load_component(tmp_path)


def test_a_plain_autoencoder_cannot_be_folded() -> None:
    with pytest.raises(ConfigError, match="no time layers"):
        fold_time(backbones.sd_vae(TINY_SD_VAE), 500)
