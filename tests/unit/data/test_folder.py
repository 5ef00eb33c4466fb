"""Folders of pictures: what is used, what is left out, counted and named, and what is remembered."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from facerestore.core.errors import ConfigError, DataError, EmptyDataset, ImageUnreadable, OutputError
from facerestore.data import Checks, Pictures, index_folder, index_pairs
from facerestore.imaging.read import read_image


@pytest.fixture
def folder(tmp_path: Path, draw) -> Path:
    """Two usable pictures, and one of each kind that is not."""
    top = tmp_path / "in"
    draw(top / "b.png", 1)
    draw(top / "a" / "c.jpg", 2)
    draw(top / "grey.png", 3, mode="L")
    draw(top / "tiny.png", 4, 160, 90)
    shutil.copy(top / "b.png", top / "copy.png")
    (top / "truncated.png").write_bytes(draw(tmp_path / "whole.png", 5).read_bytes()[:900])
    (top / "empty.jpg").write_bytes(b"")
    (top / "no_picture.jpg").write_text("a page that was saved in its place")
    (top / "notes.txt").write_text("not looked at")
    draw(top / ".hidden.png", 6)
    return top


def test_what_cannot_be_used_is_counted_named_and_left_out(folder: Path) -> None:
    index = index_folder(folder, Checks(min_px=100))
    assert [entry.key for entry in index.entries] == ["a/c.jpg", "b.png"]
    assert index.counts() == {"unreadable": 3, "duplicate": 1, "grey": 1, "too small": 1}
    by_key = {item.key: item for item in index.removed}
    assert by_key["copy.png"].detail == "has the content of b.png"
    assert by_key["tiny.png"].detail == "160 x 90 px"
    assert str(folder / "truncated.png") in by_key["truncated.png"].detail
    assert "is empty" in by_key["empty.jpg"].detail
    summary = index.summary()
    assert summary.startswith("2 of 8 are used; 3 unreadable (empty.jpg, no_picture.jpg, truncated.png)")


def test_grey_pictures_stay_where_they_are_wanted(folder: Path) -> None:
    index = index_folder(folder, Checks(min_px=100, colour=False))
    assert "grey.png" in [entry.key for entry in index.entries]


def test_the_report_can_be_opened_as_table_and_as_json(folder: Path, tmp_path: Path) -> None:
    index = index_folder(folder)
    with index.write_report(tmp_path / "report.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["key"], row["reason"]) for row in rows] == [(r.key, r.reason) for r in index.removed]
    content = json.loads(index.write_report(tmp_path / "report.json").read_text())
    assert content["kept"] == 2
    assert content["counts"] == index.counts()
    with pytest.raises(ConfigError, match=r"\.csv or \.json"):
        index.write_report(tmp_path / "report.txt")
    with pytest.raises(OutputError):
        index.write_report(tmp_path / "nowhere" / "report.csv")


def test_nothing_usable_is_an_error_that_says_what_was_there(tmp_path: Path, draw) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmptyDataset, match="there is none at all"):
        index_folder(tmp_path / "empty")
    draw(tmp_path / "small" / "a.png", 1, 20, 20)
    with pytest.raises(EmptyDataset, match=r"0 of 1 are used; 1 too small \(a.png\)"):
        index_folder(tmp_path / "small")
    with pytest.raises(DataError, match="is no folder"):
        index_folder(tmp_path / "nowhere")


def test_near_duplicates_are_found_over_size_and_encoding(tmp_path: Path, draw) -> None:
    for seed in range(8):
        draw(tmp_path / f"{seed}.png", seed, 200, 200)
    with Image.open(tmp_path / "3.png") as picture:
        picture.resize((150, 150)).save(tmp_path / "again.jpg", quality=70)
    assert len(index_folder(tmp_path)) == 9
    (found,) = index_folder(tmp_path, Checks(near=4)).removed
    assert (found.key, found.reason, found.detail) == ("again.jpg", "near duplicate", "looks like 3.png") or (
        found.key,
        found.detail,
    ) == ("3.png", "looks like again.jpg")


def test_an_unchanged_picture_is_not_read_again(folder: Path, tmp_path: Path, draw, monkeypatch) -> None:
    record = tmp_path / "cache" / "scan.json"
    first = index_folder(folder, record=record)
    draw(folder / "new.png", 9)
    opened: list[str] = []

    def counted(source, **options):
        opened.append("read")
        return read_image(source, **options)

    monkeypatch.setattr("facerestore.data.index.read_image", counted)
    second = index_folder(folder, record=record)
    assert len(opened) == 1 + first.counts()["unreadable"]  # what is damaged may have been repaired
    assert len(second) == len(first) + 1
    draw(folder / "b.png", 10)  # same name, other content
    third = index_folder(folder, record=record)
    assert third.counts().get("duplicate") is None  # its copy is a picture of its own now
    assert {entry.sha256 for entry in third.entries} > {entry.sha256 for entry in first.entries}
    record.write_text("{ damaged")
    assert index_folder(folder, record=record).entries == third.entries


def test_pairs_go_by_place_and_what_has_no_other_half_is_named(tmp_path: Path, draw) -> None:
    hq, lq = tmp_path / "hq", tmp_path / "lq"
    for number in range(3):
        draw(hq / "x" / f"{number}.png", number)
    draw(lq / "x" / "1.png", 11, 40, 40)
    draw(lq / "x" / "2.jpg", 12, 80, 80)
    draw(lq / "x" / "3.png", 13)
    index = index_pairs(hq, lq)
    assert [entry.key for entry in index.entries] == ["x/1.png", "x/2.png"]
    assert [(item.key, item.reason) for item in index.removed] == [("x/0.png", "no lq"), ("x/3.png", "no hq")]
    sample = Pictures(index, 64)[1]
    assert sample["hq"].shape == sample["lq"].shape == (3, 64, 64)
    assert not torch.equal(sample["hq"], sample["lq"])
    draw(lq / "x" / "2.webp", 14)
    with pytest.raises(DataError, match=r"x/2.png could belong to x/2.jpg or x/2.webp"):
        index_pairs(hq, lq)
    with pytest.raises(EmptyDataset, match="1 no lq"):
        index_pairs(draw(tmp_path / "h" / "a.png", 1).parent, draw(tmp_path / "l" / "b.png", 1).parent)


def test_a_pair_with_one_damaged_half_is_left_out(tmp_path: Path, draw) -> None:
    for number in range(2):
        draw(tmp_path / "hq" / f"{number}.png", number)
        draw(tmp_path / "lq" / f"{number}.png", number + 10)
    (tmp_path / "lq" / "0.png").write_bytes(b"\x89PNG")
    index = index_pairs(tmp_path / "hq", tmp_path / "lq")
    assert [entry.key for entry in index.entries] == ["1.png"]
    assert index.counts() == {"unreadable": 1}


def test_samples_are_the_middle_square_upright_and_in_srgb(tmp_path: Path, draw) -> None:
    wide = draw(tmp_path / "wide.png", 1, 300, 200)
    turned = Image.open(draw(tmp_path / "t.png", 2, 160, 200))
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter
    turned.save(tmp_path / "turned.png", exif=exif)
    (tmp_path / "t.png").unlink()
    index = index_folder(tmp_path)
    pictures = Pictures(index, 200)
    samples = {sample["key"]: sample["hq"] for sample in (pictures[0], pictures[1])}
    assert torch.equal(samples["wide.png"], read_image(wide).srgb((50, 0, 250, 200))[0])
    assert Pictures(index, None)[0]["hq"].shape == (3, 160, 200)  # sideways in its file
    assert samples["turned.png"].shape == (3, 200, 200)
    assert samples["turned.png"].dtype == torch.float32
    assert samples["turned.png"].min() >= 0 and samples["turned.png"].max() <= 1
    with pytest.raises(ConfigError):
        Pictures(index, 0)


def test_a_picture_that_is_gone_later_is_named(tmp_path: Path, draw) -> None:
    draw(tmp_path / "a.png", 1)
    pictures = Pictures(index_folder(tmp_path))
    (tmp_path / "a.png").unlink()
    with pytest.raises(ImageUnreadable, match=r"a\.png"):
        pictures[0]


@pytest.mark.parametrize("bad", [{"min_px": 0}, {"near": 40}, {"near": -1}])
def test_checks_without_sense_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Checks(**bad)
