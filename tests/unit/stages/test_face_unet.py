"""The stage of the small U-Net."""

from pathlib import Path

import pytest
import torch

from facerestore.core.errors import ConfigError, KeyMismatch
from facerestore.core.state import RestorationState
from facerestore.imaging.resize import resize
from facerestore.nets.face_unet import ResidualUNet
from facerestore.stages.face_unet import FaceUNet
from facerestore.weights.seeded import fill_seeded
from facerestore.weights.store import WeightStore
from facerestore.weights.write import write_tensors

TINY = FaceUNet.Config().tiny()


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def restored(stage: FaceUNet, faces: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return stage(RestorationState.start(faces)).image


def filled(config: FaceUNet.Config = TINY) -> FaceUNet:
    stage = config.build(WeightStore())
    fill_seeded(stage.net)
    return stage


def test_a_new_one_returns_a_face_of_its_size_and_a_larger_one_softened() -> None:
    stage = TINY.build(WeightStore())
    small, large = pictures(2, 64, 64), pictures(2, 96, 80)
    assert torch.equal(restored(stage, small), small)
    assert torch.equal(restored(stage, large), resize(resize(large, 64, 64), 96, 80))


def test_two_new_ones_are_the_same() -> None:
    torch.manual_seed(1)
    one = TINY.build(WeightStore()).net.state_dict()
    torch.manual_seed(2)
    other = TINY.build(WeightStore()).net.state_dict()
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_side_that_is_no_multiple_is_mirrored_on() -> None:
    stage, faces = filled(TINY.override("square_px", "40")), pictures(1, 40, 40)
    mirrored = torch.nn.functional.pad(faces, (0, 8, 0, 8), mode="reflect")
    with torch.no_grad():
        wanted = stage.net(mirrored)[..., :40, :40].clamp(0, 1)
    torch.testing.assert_close(restored(stage, faces), wanted, atol=1e-6, rtol=0)


def test_neither_batch_nor_order_changes_a_face() -> None:
    stage, faces = filled(), pictures(3, 96, 96)
    together = restored(stage, faces)
    placed = stage.place(torch.device("cpu"), "fp32", 2)
    torch.testing.assert_close(together, restored(placed, faces), atol=1e-5, rtol=0)
    torch.testing.assert_close(together, restored(stage, faces.flip(0)).flip(0), atol=1e-5, rtol=0)


def test_it_loads_a_file_of_the_users_own(tmp_path: Path) -> None:
    stage, path = filled(), tmp_path / "mine.safetensors"
    write_tensors(path, stage.net.state_dict(), {})
    config, store = TINY.override("weight", "own/mine"), WeightStore(paths={"own/mine": path})
    assert config.weights() == ("own/mine",)
    faces = pictures(1, 64, 64)
    assert torch.equal(restored(config.build(store), faces), restored(stage, faces))
    with pytest.raises(KeyMismatch, match="own/mine"):
        FaceUNet.Config(weight="own/mine", net=ResidualUNet.Config(widths=(8, 8), blocks=1)).build(store)


def test_a_size_below_16_px_is_refused() -> None:
    with pytest.raises(ConfigError, match="square_px=8"):
        FaceUNet.Config(square_px=8)
