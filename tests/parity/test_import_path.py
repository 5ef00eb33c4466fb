"""From the folder that a user has after downloading to the official picture, by the door that users take.

The download goes in as it is; what is pickled in it is unpickled once, and the next load reads the copy.
"""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file

from facerestore.core.errors import WeightsError
from facerestore.core.state import RestorationState
from facerestore.recipes import list_recipes
from tests.made.downloads import picture, restored, write

DATA = Path(__file__).parent / "data"
# Recipe, file of recorded pictures and tensor in it, tolerance, and the copies that the first load makes.
RECORDED = [
    ("omgsr-s", "sd21", "omgsr_s", 1e-4, 0),
    ("osediff", "sd21", "osediff", 1e-4, 1),
    ("osediff-face", "sd21", "osediff", 1e-4, 1),
    ("pisa-sr", "sd21", "pisa_sr", 1e-4, 1),
    ("tadsr", "tadsr", "tadsr_500", 2e-5, 1),
    ("ntire2026/bvi", "tadsr", "bvi_500", 2e-5, 2),  # one pickle, of which two parts are taken
    ("omgsr-f", "omgsr_f", "omgsr_f_wide", 1e-5, 0),
    ("sdface", "sdface", "restored", 1e-4, 4),
    ("ntire2026/yufans", "sdface", "restored", 1e-4, 4),  # its first stage
]
ELSEWHERE = {"osdface": "test_osdface.py, at full size", "zimage": "compared with diffusers, below"}


def test_every_published_restorer_is_here() -> None:
    published = {info.name for info in list_recipes() if info.status == "needs weights"}
    assert published <= {row[0] for row in RECORDED} | set(ELSEWHERE)


def refuse_pickles(*_: Any, **__: Any) -> None:
    raise AssertionError("a pickle was read")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "facerestore" / "weights" / "converted"


@pytest.mark.parametrize(("name", "file", "tensor", "atol", "pickles"), RECORDED)
def test_a_download_goes_in_and_the_official_picture_comes_out(
    name: str,
    file: str,
    tensor: str,
    atol: float,
    pickles: int,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = load_file(DATA / f"{file}.safetensors")
    pictures = recorded["pictures"].float() / 255 if "pictures" in recorded else picture()
    download = write(name, tmp_path / "download")
    first = restored(download.restorer(), pictures)
    official = recorded[tensor].clamp(0, 1)
    step = first.shape[-1] // official.shape[-1]
    found = first[..., ::step, ::step].reshape(official.shape)
    torch.testing.assert_close(found, official, atol=atol, rtol=0)

    made = {path: path.stat().st_mtime_ns for path in cache.glob("*")}
    assert len(made) == pickles
    monkeypatch.setattr(torch, "load", refuse_pickles)
    assert torch.equal(restored(download.restorer(), pictures), first)
    assert {path: path.stat().st_mtime_ns for path in cache.glob("*")} == made
    if pickles:
        for path in made:
            path.unlink()
        with pytest.raises(WeightsError, match="a pickle was read"):  # it would have been seen
            download.load()


def test_z_image_turbo_goes_in_and_what_diffusers_makes_of_it_comes_out(tmp_path: Path, cache: Path) -> None:
    """The folder is loaded on the other side by diffusers itself."""
    download, pictures = write("zimage", tmp_path), picture()
    base = download.weights["z-image-turbo"]
    assert len(list((base / "transformer").glob("*.safetensors"))) > 1
    stage = download.restorer()
    transformer = diffusers.ZImageTransformer2DModel.from_pretrained(base / "transformer")
    vae = diffusers.AutoencoderKL.from_pretrained(base / "vae")
    prompt = load_file(base / "prompt.safetensors")["prompt"]
    with torch.no_grad():
        z = (vae.encode(pictures * 2 - 1).latent_dist.mode() - 0.1159) * 0.3611
        told = transformer([z[0, :, None]], torch.tensor([1 - 0.244]), [prompt], return_dict=False)[0]
        decoded = vae.decode((z + 0.244 * told[0][None, :, 0]) / 0.3611 + 0.1159).sample
        ours = stage(RestorationState.start(pictures)).image
    official = (decoded / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(ours, official, atol=1e-5, rtol=0)
    assert (official - pictures).abs().mean() > 0.05 and not cache.exists()
