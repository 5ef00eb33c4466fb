"""Batches: threads that end, errors that name their file, samples that fit together."""

import threading
import time
from pathlib import Path

import pytest
import torch

from facerestore.core.errors import ConfigError, DataError, ImageUnreadable
from facerestore.data import Augment, Order, Pictures, augmented, batches, index_folder, stacked


@pytest.fixture
def pictures(tmp_path: Path, draw) -> Pictures:
    for number in range(6):
        draw(tmp_path / f"{number}.png", number, 160, 160)
    return Pictures(index_folder(tmp_path), 32)


def reading() -> int:
    return sum(thread.name.startswith("facerestore-data") for thread in threading.enumerate())


def test_threads_read_ahead_and_end_when_the_generator_does(pictures: Pictures) -> None:
    read: list[int] = []

    class Watched:
        def __len__(self) -> int:
            return len(pictures)

        def __getitem__(self, index: int):
            read.append(index)
            return pictures[index]

    stream = batches(Watched(), Order(6, 0), batch=2, workers=2, ahead=2)
    first = next(stream)
    assert first["hq"].shape == (2, 3, 32, 32)
    assert first["position"] == 2
    deadline = time.monotonic() + 5
    while len(read) < 6 and time.monotonic() < deadline:  # two batches more than were asked for
        time.sleep(0.01)
    assert len(read) == 6
    assert reading() == 2
    stream.close()
    assert reading() == 0


def test_a_picture_that_breaks_later_is_named_and_nothing_hangs(pictures: Pictures, tmp_path: Path) -> None:
    (tmp_path / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    for workers in (0, 2):
        stream = batches(pictures, Order(6, 0, shuffle=False), batch=1, workers=workers)
        assert [next(stream)["key"] for _ in range(3)] == [("0.png",), ("1.png",), ("2.png",)]
        with pytest.raises(ImageUnreadable, match=r"3\.png"):
            next(stream)
        with pytest.raises(StopIteration):
            next(stream)
        assert reading() == 0


def test_numbers_that_do_not_fit_are_refused_at_once(pictures: Pictures) -> None:
    for options in (
        {"batch": 0},
        {"batch": 1, "workers": -1},
        {"batch": 1, "ahead": 0},
        {"batch": 1, "rank": 1},
    ):
        with pytest.raises(ConfigError):
            batches(pictures, Order(6, 0), **options)
    with pytest.raises(ConfigError, match="over 5 entries, the data set has 6"):
        batches(pictures, Order(5, 0), batch=1)


def test_samples_that_do_not_fit_together_are_named(tmp_path: Path, draw) -> None:
    draw(tmp_path / "a.png", 1, 160, 160)
    draw(tmp_path / "b.png", 2, 160, 200)
    pictures = Pictures(index_folder(tmp_path), None)
    with pytest.raises(
        DataError, match=r"b.png: hq has shape \(3, 200, 160\), that of a.png \(3, 160, 160\)"
    ):
        stacked([pictures[0], pictures[1]])
    with pytest.raises(DataError, match=r"b\.png and a.png differ in what they have: lq"):
        stacked([pictures[0], {**pictures[1], "lq": pictures[1]["hq"]}])
    crop = Augment(crop_px=96)
    assert next(batches(pictures, Order(2, 0), batch=2, augment=crop))["hq"].shape == (2, 3, 96, 96)
    with pytest.raises(DataError, match="is smaller than the crop"):
        augmented(pictures[0], Augment(crop_px=200), 0)
    with pytest.raises(DataError, match="is not square"):
        augmented(pictures[1], Augment(zoom=2), 0)


def test_all_pictures_of_a_sample_are_changed_alike(pictures: Pictures) -> None:
    sample = {**pictures[0], "lq": pictures[0]["hq"] / 2, "coarse": pictures[0]["hq"] / 4}
    for seed in range(8):
        changed = augmented(sample, Augment(zoom=1.7), seed)
        assert not torch.equal(changed["hq"], sample["hq"])
        torch.testing.assert_close(
            changed["lq"], changed["hq"] / 2, atol=1e-3, rtol=0
        )  # clamps cut otherwise
        torch.testing.assert_close(changed["coarse"], changed["hq"] / 4, atol=1e-3, rtol=0)


def test_latents_belong_to_the_unchanged_picture(pictures: Pictures) -> None:
    sample = {**pictures[0], "z_hq": torch.zeros(4, 4, 4)}
    assert augmented(sample, Augment(flip=0), 1) is sample
    with pytest.raises(DataError, match="z_hq belongs to the unchanged picture"):
        augmented(sample, Augment(flip=0.01), 1)


def test_a_mirrored_picture_takes_its_own_latents(pictures: Pictures) -> None:
    still, turned = torch.zeros(4, 4, 4), torch.ones(4, 4, 4)
    sample = {**pictures[0], "z_hq": still, "z_hq_mirrored": turned}
    as_it_was, mirrored = (augmented(sample, Augment(flip=0.5), seed) for seed in _unlike_flips())
    for changed, latents, hq in ((as_it_was, still, sample["hq"]), (mirrored, turned, sample["hq"].flip(2))):
        assert changed.keys() == {"key", "hq", "z_hq"}
        assert torch.equal(changed["z_hq"], latents)
        assert torch.equal(changed["hq"], hq)
    with pytest.raises(DataError, match="z_hq belongs to the unchanged picture"):
        augmented(sample, Augment(zoom=2), 1)


def _unlike_flips() -> tuple[int, int]:
    """A seed that leaves pictures as they are, and one that mirrors them."""
    picture = {"key": "a", "hq": torch.rand(3, 8, 8)}
    flips = [not torch.equal(augmented(picture, Augment(), seed)["hq"], picture["hq"]) for seed in range(20)]
    return flips.index(False), flips.index(True)


@pytest.mark.parametrize("bad", [{"flip": 2}, {"zoom": 0.5}, {"zoom": float("nan")}, {"crop_px": 0}])
def test_changes_without_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Augment(**bad)
