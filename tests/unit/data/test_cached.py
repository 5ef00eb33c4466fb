"""What is computed once: it resumes, it is found by its fingerprint alone, and it says what is missing."""

from pathlib import Path

import pytest
import torch

from facerestore.core.errors import ConfigError, DataError, ImageError, ShapeError, WeightsError
from facerestore.data import Cached, Pictures, content_seed, fill, fingerprint, index_folder

FIELDS = ("coarse", "z_hq")


def make(batch):
    noise = [torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in batch["seed"]]
    return {"coarse": batch["hq"].flip(3), "z_hq": torch.stack(noise).bfloat16()}


@pytest.fixture
def folder(tmp_path: Path, draw) -> Path:
    for number in range(5):
        draw(tmp_path / "in" / f"{number}.png", number)
    return tmp_path / "in"


def dataset(folder: Path) -> Pictures:
    return Pictures(index_folder(folder), 160)


def test_it_is_computed_once_and_read_as_it_was(folder: Path, tmp_path: Path) -> None:
    told: list[int] = []
    assert fill(dataset(folder), tmp_path / "c", "abc", make, FIELDS, batch=2, done=told.append) == 5
    assert told == [2, 2, 1]
    cached = Cached(dataset(folder), tmp_path / "c", "abc", FIELDS)
    plain = dataset(folder)
    for index in range(5):
        sample = cached[index]
        assert torch.equal(sample["hq"], plain[index]["hq"])
        assert torch.equal(sample["coarse"], plain[index]["hq"].flip(2))  # 8 bits came, 8 bits are kept
        seed = content_seed(plain.entries[index])
        expected = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(seed)).bfloat16()
        assert torch.equal(sample["z_hq"], expected)


def test_it_goes_on_where_it_was_interrupted(folder: Path, tmp_path: Path) -> None:
    calls: list[str] = []

    def tired(batch):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.extend(batch["key"])
        return make(batch)

    with pytest.raises(KeyboardInterrupt):
        fill(dataset(folder), tmp_path / "c", "abc", tired, FIELDS)
    with pytest.raises(DataError, match=r"of 2 of 5 samples are not there, the first is 3\.png"):
        Cached(dataset(folder), tmp_path / "c", "abc", FIELDS)
    half = next((tmp_path / "c").rglob("*.z_hq.safetensors"))
    half.unlink()  # a kill between the two files of a sample
    assert fill(dataset(folder), tmp_path / "c", "abc", make, FIELDS) == 3
    assert len(Cached(dataset(folder), tmp_path / "c", "abc", FIELDS)) == 5


def test_new_and_changed_pictures_alone_are_computed_and_renamed_ones_are_found(
    folder: Path, tmp_path: Path, draw
) -> None:
    fill(dataset(folder), tmp_path / "c", "abc", make, FIELDS)
    (folder / "0.png").rename(folder / "renamed.png")
    draw(folder / "1.png", 21)
    draw(folder / "new.png", 22)
    assert fill(dataset(folder), tmp_path / "c", "abc", make, FIELDS) == 2


def test_another_fingerprint_never_finds_it(folder: Path, tmp_path: Path) -> None:
    fill(dataset(folder), tmp_path / "c", "abc", make, FIELDS)
    with pytest.raises(DataError, match="5 of 5"):
        Cached(dataset(folder), tmp_path / "c", "abd", FIELDS)


def test_what_is_made_must_be_what_was_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lq were to be made, coarse, z_hq was"):
        fill(dataset(folder), tmp_path / "c", "abc", make, ["lq"])
    with pytest.raises(ShapeError):
        fill(dataset(folder), tmp_path / "c", "abc", lambda batch: {"lq": batch["hq"][:0]}, ["lq"])
    for bad in ("", "../x", "a/b", ".hidden"):
        with pytest.raises(ConfigError, match="cannot name a folder"):
            fill(dataset(folder), tmp_path / "c", bad, make, FIELDS)
    with pytest.raises(ConfigError, match="at least one field"):
        fill(dataset(folder), tmp_path / "c", "abc", make, [])


def test_damage_is_named(folder: Path, tmp_path: Path) -> None:
    fill(dataset(folder), tmp_path / "c", "abc", make, FIELDS)
    cached = Cached(dataset(folder), tmp_path / "c", "abc", FIELDS)
    name = f"{cached.entries[0].sha256[:32]}"
    (picture,) = (tmp_path / "c").rglob(f"{name}.coarse.png")
    picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(ImageError, match=name):
        cached[0]
    (latent,) = (tmp_path / "c").rglob(f"{cached.entries[1].sha256[:32]}.z_hq.safetensors")
    latent.write_bytes(latent.read_bytes()[:60])
    with pytest.raises(WeightsError, match="z_hq"):
        cached[1]


def test_a_fingerprint_changes_with_content_and_names_and_not_with_the_order(folder: Path, draw) -> None:
    entries = index_folder(folder).entries
    first = fingerprint(entries)
    assert first == fingerprint(entries[::-1])
    assert (first.pictures, first.licences, len(first.hash)) == (5, {"not stated": 5}, 16)
    assert fingerprint(entries[:-1]).hash != first.hash
    (folder / "0.png").rename(folder / "00.png")
    renamed = fingerprint(index_folder(folder).entries)
    draw(folder / "00.png", 30)
    changed = fingerprint(index_folder(folder).entries)
    assert len({first.hash, renamed.hash, changed.hash}) == 3
    assert changed.to_dict()["pictures"] == 5
