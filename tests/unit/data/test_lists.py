"""Data sets that a list, a table, a layout or shards describe."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch

from facerestore.core.errors import ConfigError, DataError, EmptyDataset
from facerestore.data import (
    Pictures,
    balanced,
    ffhq_landmarks,
    held_back,
    index_ffhq,
    index_list,
    index_shards,
    index_table,
    select,
)


def test_a_basicsr_list_gives_names_with_shapes_in_its_order(tmp_path: Path, draw) -> None:
    for number in range(3):
        draw(tmp_path / f"{number:08d}.png", number)
    lines = ["00000002.png (160,160,3)", "", "# not this", "00000000.png", "00000001.png (160,160,3) 1"]
    lines += ["00000002.png (160,160,3)", "gone.png (1,1,3)"]
    (tmp_path / "meta_info.txt").write_text("\n".join(lines))
    index = index_list(tmp_path / "meta_info.txt", tmp_path)
    assert [entry.key for entry in index.entries] == ["00000002.png", "00000000.png", "00000001.png"]
    assert index.counts() == {"named twice": 1, "missing": 1}


def test_a_basicsr_list_gives_pairs_target_first(tmp_path: Path, draw) -> None:
    draw(tmp_path / "gt" / "a.png", 1)
    draw(tmp_path / "lr" / "a_x4.png", 2, 40, 40)
    (tmp_path / "pairs.txt").write_text("gt/a.png, lr/a_x4.png\n")
    (entry,) = index_list(tmp_path / "pairs.txt", tmp_path).entries
    assert {name: str(place.path.relative_to(tmp_path)) for name, place in entry.files.items()} == {
        "hq": "gt/a.png",
        "lq": "lr/a_x4.png",
    }
    (tmp_path / "names.txt").write_text("a.png (160,160,3)\n")
    draw(tmp_path / "lr" / "a.png", 3, 40, 40)
    (entry,) = index_list(tmp_path / "names.txt", tmp_path / "gt", tmp_path / "lr").entries
    assert entry.files["lq"].path == tmp_path / "lr" / "a.png"


@pytest.mark.parametrize("line", ["../outside.png", "/etc/passwd", "a.png, b.png, c.png", "a.png, "])
def test_a_list_with_a_bad_line_names_it(tmp_path: Path, line: str) -> None:
    (tmp_path / "list.txt").write_text(f"\n{line}\n")
    with pytest.raises(DataError, match="line 2"):
        index_list(tmp_path / "list.txt", tmp_path)


def test_a_list_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00\x80")
    for name in ("list.txt", "nowhere.txt"):
        with pytest.raises(DataError, match="cannot be read as a list"):
            index_list(tmp_path / name, tmp_path)


TABLE = """file,source,licence,identity
a/0.png,one,CC0-1.0,x
a/1.png,one,"Public domain (US work)",y
a/2.png,one,CC0-1.0,x
b/3.png,two,MIT,
b/4.png,two,All rights reserved,z
b/gone.png,two,MIT,z
"""


@pytest.fixture
def table(tmp_path: Path, draw) -> Path:
    for number, name in enumerate(["a/0", "a/1", "a/2", "b/3", "b/4"]):
        draw(tmp_path / f"{name}.png", number)
    (tmp_path / "manifest.csv").write_text(TABLE)
    return tmp_path / "manifest.csv"


def test_a_table_gives_its_rows_and_what_it_knows_of_them(table: Path) -> None:
    index = index_table(table, where={"licence": ("CC0*", "MIT", "Public domain (US*")})
    assert [entry.key for entry in index.entries] == ["a/0.png", "a/1.png", "a/2.png", "b/3.png"]
    assert index.counts() == {"other licence": 1, "unreadable": 1}
    assert index.entries[1].facts == {"source": "one", "licence": "Public domain (US work)", "identity": "y"}
    assert balanced(index, "source") == (1 / 3, 1 / 3, 1 / 3, 1)
    assert [entry.key for entry in select(index, {"source": "two"}).entries] == ["b/3.png"]


def test_a_table_that_does_not_fit_says_so(table: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no column 'path'; the columns are file, source"):
        index_table(table, file="path")
    with pytest.raises(ConfigError, match="no entry has the fact 'license'"):
        index_table(table, where={"license": "MIT"})
    with pytest.raises(EmptyDataset, match="6 other licence"):
        index_table(table, where={"licence": "GPL"})
    with pytest.raises(DataError, match="cannot be read as a table"):
        index_table(tmp_path / "nowhere.csv")
    with pytest.raises(ConfigError, match="have no fact 'tier'"):
        balanced(index_table(table), "tier")


def test_people_are_held_back_whole_and_stay_so(table: Path, draw) -> None:
    index = index_table(table)
    for seed in range(6):
        try:
            trained, held = held_back(index, 0.5, seed=seed)
        except ConfigError:  # with three people a side may be empty
            continue
        sides = [{e.facts["identity"] or e.key for e in side.entries} for side in (trained, held)]
        assert not sides[0] & sides[1]
        assert len(trained) + len(held) == len(index)
        assert held_back(index, 0.5, seed=seed)[1].entries == held.entries
    with pytest.raises(ConfigError, match="holds back 0 of 5"):
        held_back(index, 0.0)


@pytest.fixture
def ffhq(tmp_path: Path, draw) -> Path:
    """FFHQ as published, with three faces, and FFHQR with two of them beside it."""
    metadata = {}
    for number, name in ((0, "00000/00000"), (1, "00000/00001"), (61000, "61000/61000")):
        draw(tmp_path / "ffhq" / "images1024x1024" / f"{name}.png", number)
        draw(tmp_path / "ffhq" / "thumbnails128x128" / f"{name}.png", number, 128, 128)
        points = [[400.0 + 3 * k, 500.0 + k] for k in range(68)]
        metadata[str(number)] = {
            "category": "training" if number < 60000 else "validation",
            "metadata": {"license": "Public Domain Mark 1.0", "author": f"Somebody {number}"},
            "image": {"file_path": f"images1024x1024/{name}.png", "face_landmarks": points},
        }
    (tmp_path / "ffhq" / "LICENSE.txt").write_text("text")
    (tmp_path / "ffhq" / "ffhq-dataset-v2.json").write_text(json.dumps(metadata))
    for number, name in ((0, "00000/00000"), (61000, "61000/61000")):
        draw(tmp_path / "ffhqr" / "images1024x1024" / f"{name}.png", number + 5)
    return tmp_path / "ffhq"


def test_ffhq_as_published_with_licences(ffhq: Path) -> None:
    index = index_ffhq(ffhq)
    assert [entry.key for entry in index.entries] == ["00000", "00001", "61000"]
    assert index.entries[2].facts == {
        "folder": "61000",
        "licence": "Public Domain Mark 1.0",
        "author": "Somebody 61000",
        "category": "validation",
    }
    assert [entry.key for entry in select(index, {"category": "training"}).entries] == ["00000", "00001"]
    assert len(ffhq_landmarks(ffhq)["61000"]) == 68


def test_ffhqr_is_the_target_and_the_face_as_it_was_stays(ffhq: Path) -> None:
    index = index_ffhq(ffhq, ffhq.parent / "ffhqr")
    assert [entry.key for entry in index.entries] == ["00000", "61000"]
    assert [(item.key, item.reason) for item in index.removed] == [("00001", "no retouched face")]
    files = index.entries[0].files
    assert files["hq"].path.is_relative_to(ffhq.parent / "ffhqr")
    assert files["original"].path.is_relative_to(ffhq)
    assert index.entries[0].facts["licence"] == "Public Domain Mark 1.0; CC BY-NC-SA 4.0 (FFHQR)"
    assert Pictures(index, 64)[0].keys() == {"key", "hq", "original"}


def test_ffhq_in_one_folder_without_its_metadata(tmp_path: Path, draw) -> None:
    for number in (0, 7):
        draw(tmp_path / f"{number:08d}.png", number)
    draw(tmp_path / "contact_sheet.png", 9)
    index = index_ffhq(tmp_path)
    assert [entry.key for entry in index.entries] == ["00000", "00007"]
    with pytest.raises(DataError, match="no such file"):
        ffhq_landmarks(tmp_path)
    (tmp_path / "ffhq-dataset-v2.json").write_text('{"0": ')
    with pytest.raises(DataError, match="fetch it again"):
        index_ffhq(tmp_path)


def shard(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path: Path, draw) -> Path:
    def png(seed: int) -> bytes:
        return draw(tmp_path / "x" / f"{seed}.png", seed).read_bytes()

    shard(tmp_path / "s-008.tar", {"a/0002.png": png(1), "a/0002.json": b"{}", "a/0001.jpg": b"damaged"})
    shard(
        tmp_path / "s-009.tar",
        {"0003.lq.png": png(2), "0003.hq.png": png(3), "0004.lq.png": png(4), "0005.mask.png": png(5)},
    )
    shard(tmp_path / "s-010.tar", {"0006.webp": png(6), "a/0002.png": png(7)})
    return tmp_path


def test_shards_give_samples_in_their_order(shards: Path) -> None:
    index = index_shards(str(shards / "s-{008..010}.tar"))
    assert [entry.key for entry in index.entries] == ["a/0002", "0003", "0006"]
    assert index.counts() == {"no hq": 1, "named twice": 1, "unreadable": 1}
    (damaged,) = (item for item in index.removed if item.reason == "unreadable")
    assert damaged.detail.startswith(f"{shards / 's-008.tar'}: a/0001.jpg: ")
    pictures = Pictures(index, 160)
    alone = Pictures(index_shards(shards / "s-009.tar"), 160)
    assert torch.equal(pictures[1]["lq"], alone[0]["lq"])
    assert index_shards(shards).entries == index_shards(str(shards / "s-*.tar")).entries == index.entries


def test_shards_hold_what_webdataset_writes_and_reads(tmp_path: Path, draw) -> None:
    webdataset = pytest.importorskip("webdataset", reason="comes with the extra data")
    with webdataset.ShardWriter(str(tmp_path / "s-%06d.tar"), maxcount=2, verbose=0) as writer:
        for number in range(5):
            content = draw(tmp_path / "x" / f"{number}.png", number).read_bytes()
            writer.write({"__key__": f"face{number}", "png": content, "json": {"number": number}})
    urls = str(tmp_path / "s-{000000..000002}.tar")
    theirs = list(webdataset.WebDataset(urls, shardshuffle=False))
    index = index_shards(urls)
    assert [entry.key for entry in index.entries] == [item["__key__"] for item in theirs]
    assert [entry.files["hq"].content() for entry in index.entries] == [item["png"] for item in theirs]


def test_shards_that_cannot_be_read_as_they_are(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such shard"):
        index_shards([shards / "s-008.tar", shards / "s-042.tar"])
    with pytest.raises(DataError, match="there is no shard"):
        index_shards(str(shards / "other-*.tar"))
    with pytest.raises(DataError, match="gunzip"):
        index_shards(shard(tmp_path / "z.tar.gz", {"a.png": b"x"}, "w:gz"))
    whole = (shards / "s-009.tar").read_bytes()
    pictures = Pictures(index_shards(shards / "s-009.tar"))
    (shards / "s-009.tar").write_bytes(whole[:1500])  # cut after it was looked at
    with pytest.raises(OSError, match=r"s-009\.tar: 0003\.hq\.png: \d+ bytes expected"):
        pictures[0]
