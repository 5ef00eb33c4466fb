"""Which files a run takes, and what it calls its outputs."""

import itertools
import os
from pathlib import Path

import pytest
from PIL import Image

from facerestore.batch.inputs import plan
from facerestore.core.errors import ConfigError
from facerestore.imaging.tree import PICTURE_ENDINGS
from facerestore.imaging.write import write_image


def tree(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def outputs(root: Path, inputs, **options) -> dict[str, str]:
    items = plan(inputs, options.pop("output_dir", root / "out"), **options)
    return {str(item.source.relative_to(root)): str(item.output) for item in items}


def test_folder_keeps_its_tree_in_a_stable_order_without_hidden_files(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "in/b.png",
        "in/a.jpg",
        "in/sub/deep/c.webp",
        "in/.hidden.png",
        "in/.git/d.png",
        "in/notes.txt",
    )
    found = outputs(tmp_path, [tmp_path / "in"])
    assert found == {"in/a.jpg": "a.jpg", "in/b.png": "b.png", "in/sub/deep/c.webp": "sub/deep/c.webp"}
    assert list(found) == ["in/a.jpg", "in/b.png", "in/sub/deep/c.webp"]


def test_names_in_any_script_survive(tmp_path: Path) -> None:
    names = ["家族.jpg", "семья.png", "عائلة.webp", "οικογένεια.tif", "a b '\"$;.png", "👪.jpeg"]
    tree(tmp_path / "in", *names)
    assert sorted(outputs(tmp_path, [tmp_path / "in"]).values()) == sorted(names)


@pytest.mark.parametrize(
    ("format", "expected"),
    [
        (
            "same",
            {"a.jpg": "a.jpg", "b.JPEG": "b.JPEG", "c.gif": "c.png", "d.heic": "d.png", "e.tif": "e.tif"},
        ),
        ("png", {"a.jpg": "a.png", "b.JPEG": "b.png", "c.gif": "c.png", "d.heic": "d.png", "e.tif": "e.png"}),
        (
            "webp",
            {"a.jpg": "a.webp", "b.JPEG": "b.webp", "c.gif": "c.webp", "d.heic": "d.webp", "e.tif": "e.webp"},
        ),
    ],
)
def test_ending_follows_the_format(tmp_path: Path, format, expected) -> None:
    tree(tmp_path / "in", *expected)
    items = plan([tmp_path / "in"], tmp_path / "out", format)
    assert {item.source.name: str(item.output) for item in items} == expected


@pytest.mark.parametrize("ending", sorted(PICTURE_ENDINGS))
def test_every_kind_of_input_gets_an_ending_that_can_be_written(tmp_path: Path, ending: str) -> None:
    (item,) = plan([tmp_path / f"a{ending}"], tmp_path / "out")
    written = write_image(tmp_path / item.output, Image.new("RGB", (8, 8)))
    assert Image.open(written).size == (8, 8)


def test_same_stem_twice_is_decided_by_the_whole_list_not_by_order(tmp_path: Path) -> None:
    files = ["a.jpg", "a.png", "a.webp", "b.jpg"]
    tree(tmp_path, *files)
    expected = {"a.jpg": "a.jpg.png", "a.png": "a.png", "a.webp": "a.webp.png", "b.jpg": "b.png"}
    for order in itertools.permutations(files):
        assert outputs(tmp_path, [tmp_path / name for name in order], format="png") == expected


def test_same_name_in_two_folders_keeps_the_path_below_the_shared_folder(tmp_path: Path) -> None:
    tree(tmp_path, "x/a.jpg", "y/deep/a.jpg", "y/b.jpg")
    expected = {"x/a.jpg": "x/a.jpg", "y/deep/a.jpg": "y/deep/a.jpg", "y/b.jpg": "b.jpg"}
    assert outputs(tmp_path, [tmp_path / name for name in expected]) == expected
    assert outputs(tmp_path, [tmp_path / "x", tmp_path / "y/deep"]) == {
        "x/a.jpg": "x/a.jpg",
        "y/deep/a.jpg": "y/deep/a.jpg",
    }


def test_no_two_inputs_ever_share_an_output(tmp_path: Path) -> None:
    tree(tmp_path, "x/a.jpg", "x/a.png", "y/a.jpg", "y/a.jpg.png", "x/a.jpg.png", "a.png")
    try:
        items = plan([tmp_path / "x", tmp_path / "y", tmp_path / "a.png"], tmp_path / "out", "png")
    except ConfigError as error:
        assert "would both become" in str(error)
    else:
        assert len({item.output for item in items}) == len(items) == 6


def test_what_cannot_be_told_apart_is_refused_by_name(tmp_path: Path) -> None:
    tree(tmp_path, "a.jpg", "a.png", "a.jpg.png")
    with pytest.raises(ConfigError, match=r"a\.jpg\.png"):
        plan([tmp_path / "a.jpg", tmp_path / "a.png", tmp_path / "a.jpg.png"], tmp_path / "out", "png")


def test_loops_of_links_end_and_nothing_is_found_twice(tmp_path: Path) -> None:
    tree(tmp_path, "in/z/real.png")
    (tmp_path / "in/z/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/a_link").symlink_to(tmp_path / "in/z")
    (tmp_path / "in/self").symlink_to(tmp_path / "in/self")
    assert outputs(tmp_path, [tmp_path / "in"]) == {"in/z/real.png": "z/real.png"}


def test_linked_folder_outside_is_followed_once(tmp_path: Path) -> None:
    tree(tmp_path, "album/p.png", "in/own.png")
    (tmp_path / "in/one").symlink_to(tmp_path / "album")
    (tmp_path / "in/two").symlink_to(tmp_path / "album")
    assert list(outputs(tmp_path, [tmp_path / "in"]).values()) == ["one/p.png", "own.png"]


def test_pattern_and_a_file_whose_name_looks_like_one(tmp_path: Path) -> None:
    tree(tmp_path, "s/1.jpg", "s/2.jpg", "s/notes.txt", "s/[x].jpg", "s/x.jpg")
    assert list(outputs(tmp_path, [tmp_path / "s/[0-9]*"])) == ["s/1.jpg", "s/2.jpg"]
    assert list(outputs(tmp_path, [tmp_path / "s/[x].jpg"])) == ["s/[x].jpg"]


def test_a_file_given_twice_is_done_once(tmp_path: Path) -> None:
    tree(tmp_path, "in/a.png")
    assert outputs(tmp_path, [tmp_path / "in", tmp_path / "in/a.png"]) == {"in/a.png": "a.png"}


def test_what_does_not_exist_stays_in_the_list(tmp_path: Path) -> None:
    tree(tmp_path, "a.png")
    assert list(outputs(tmp_path, [tmp_path / "gone.png", tmp_path / "a.png"])) == ["gone.png", "a.png"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read every folder")
def test_folder_that_cannot_be_opened_stays_in_the_list(tmp_path: Path) -> None:
    tree(tmp_path, "in/a.png", "in/locked/b.png")
    (tmp_path / "in/locked").chmod(0)
    try:
        assert set(outputs(tmp_path, [tmp_path / "in"])) == {"in/a.png", "in/locked"}
    finally:
        (tmp_path / "in/locked").chmod(0o755)


def test_no_picture_at_all_says_what_counts(tmp_path: Path) -> None:
    tree(tmp_path, "in/notes.txt")
    with pytest.raises(ConfigError, match=r"in; .*\.webp"):
        plan([tmp_path / "in"], tmp_path / "out")


def test_output_folder_inside_an_input_folder_is_not_searched(tmp_path: Path) -> None:
    tree(tmp_path, "in/a.png", "in/out/a.png", "in/out/sub/b.png")
    assert outputs(tmp_path, [tmp_path / "in"], output_dir=tmp_path / "in/out") == {"in/a.png": "a.png"}


def test_writing_over_an_input_is_refused(tmp_path: Path) -> None:
    tree(tmp_path, "in/a.png")
    with pytest.raises(ConfigError, match=r"would replace the input .*a\.png"):
        plan([tmp_path / "in"], tmp_path / "in")


def test_into_the_input_folder_under_other_names_and_again(tmp_path: Path) -> None:
    tree(tmp_path, "in/a.jpg")
    assert outputs(tmp_path, [tmp_path / "in"], output_dir=tmp_path / "in", format="png") == {
        "in/a.jpg": "a.png"
    }
    tree(tmp_path, "in/a.png", "in/manifest.jsonl", "in/sheet.png")
    again = outputs(
        tmp_path, [tmp_path / "in"], output_dir=tmp_path / "in", format="png", earlier_outputs={"a.png"}
    )
    assert again == {"in/a.jpg": "a.png"}
