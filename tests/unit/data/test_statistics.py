"""What faces are like on average: added up in parts, written, read, and refused where it is not that."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from facerestore.core.errors import DataError, OutputError
from facerestore.data import Pictures, index_folder, measure_statistics, read_statistics, write_statistics
from facerestore.features.inception import FidFeatures, feature_statistics


def numbers(faces: Tensor) -> Tensor:
    """A description with large means and small variances, where sums of squares lose most."""
    return faces.mean((2, 3)) + 100


def folder(tmp_path: Path, draw, count: int) -> Pictures:
    for number in range(count):
        draw(tmp_path / "in" / f"{number}.png", number)
    return Pictures(index_folder(tmp_path / "in"), 64)


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_parts_add_up_to_the_statistics_of_all(tmp_path: Path, draw, batch: int) -> None:
    faces = folder(tmp_path, draw, 7)
    told: list[int] = []
    found = measure_statistics(faces, numbers, batch=batch, done=told.append)
    wanted = feature_statistics(torch.stack([numbers(faces[i]["hq"][None])[0] for i in range(7)]).double())
    assert sum(told) == 7
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(ours.double(), theirs, rtol=1e-5)


def test_they_are_read_as_they_were_written(tmp_path: Path, draw) -> None:
    found = measure_statistics(folder(tmp_path, draw, 3), FidFeatures.tiny())
    path = write_statistics(tmp_path / "real.safetensors", *found, network="tiny")
    for ours, theirs in zip(read_statistics(path), found, strict=True):
        assert torch.equal(ours, theirs) and ours.shape == (128,)


def test_what_is_no_statistics_is_refused(tmp_path: Path, draw) -> None:
    with pytest.raises(DataError, match="1 faces have no statistics"):
        measure_statistics(folder(tmp_path, draw, 1), numbers)
    with pytest.raises(DataError, match="facerestore data statistics"):
        read_statistics(tmp_path / "nowhere.safetensors")
    (tmp_path / "text.safetensors").write_text("nothing")
    with pytest.raises(DataError, match="no statistics of faces"):
        read_statistics(tmp_path / "text.safetensors")
    with pytest.raises(OutputError):
        write_statistics(tmp_path / "in", torch.zeros(2), torch.zeros(2))
