"""Pictures belong together by their path; whatever does not fit is named, nothing is left out silently."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from facerestore.core.errors import ConfigError, DataError
from facerestore.evaluation import PAPERS, Case, Column, Protocol, Subset
from facerestore.evaluation.landmarks import COLUMNS, read_landmarks
from facerestore.evaluation.measuring import read
from facerestore.evaluation.pictures import attributes_of, match

TWO = Protocol(
    name="two", columns=(Column(metric="psnr", against="hq"),), subsets=(Subset(name="A"), Subset(name="B"))
)


def put(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (90, 90, 90)).save(path)
    return folder


def test_subsets_may_share_names_and_endings_may_differ(tmp_path: Path) -> None:
    restored = put(tmp_path / "restored", "A/0060.png", "B/0060.png")
    lq = put(tmp_path / "lq", "a/0060.jpg", "B/0060.png")
    cases, problems = match(TWO, restored, lq)
    assert [case.key for case in cases] == ["A/0060", "B/0060"]
    assert [case.subset for case in cases] == ["A", "B"]
    assert cases[0].lq == lq / "a/0060.jpg", "whatever the case of a subset's folder"
    assert not problems


def test_everything_wrong_is_named(tmp_path: Path) -> None:
    restored = put(
        tmp_path / "restored", "A/one.png", "A/twice.png", "A/twice.webp", "A/alone.png", "C/x.png"
    )
    lq = put(tmp_path / "lq", "A/one.png", "A/twice.png", "A/gone.png", "C/x.png")
    cases, problems = match(TWO, restored, lq)
    assert [case.key for case in cases] == ["A/one"]
    assert {(each.kind, each.key) for each in problems} == {
        ("duplicate", "A/twice"),
        ("missing", "A/gone"),
        ("extra", "A/alone"),
        ("extra", "C/x"),
    }


def test_a_subset_with_too_few_is_named(tmp_path: Path) -> None:
    counted = Protocol(name="n", columns=TWO.columns, subsets=(Subset(name="A", count=3),))
    _, problems = match(counted, put(tmp_path, "A/one.png"))
    assert [(each.kind, each.key) for each in problems] == [("missing", "A")]
    assert "1 pictures" in problems[0].message and "3" in problems[0].message


def test_without_subsets_folders_do_not_matter(tmp_path: Path) -> None:
    cases, problems = match(PAPERS, put(tmp_path, "x.png", "deep/er/y.png"))
    assert [case.key for case in cases] == ["deep/er/y", "x"] and not problems


@pytest.mark.parametrize("make", [lambda path: path / "none", lambda path: path])
def test_no_folder_and_no_picture_are_errors(tmp_path: Path, make: object) -> None:
    with pytest.raises(ConfigError, match=r"no such folder|no picture"):
        match(PAPERS, make(tmp_path))  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("RGB", ()), ("RGBA", ("alpha left out",)), ("L", ("grey repeated to three channels",)),
     ("I;16", ("grey repeated to three channels", "16 bits kept"))],
)  # fmt: skip
def test_what_reading_changes_is_recorded(tmp_path: Path, mode: str, expected: tuple[str, ...]) -> None:
    Image.new(mode, (8, 8), 0).save(tmp_path / "x.png")
    picture = read(Case("x", "", tmp_path / "x.png"), 0)
    assert picture.converted == tuple(f"restored: {each}" for each in expected)
    assert picture.images["restored"].shape == (1, 3, 8, 8)
    assert picture.images["restored"].dtype == torch.float32


def test_sizes_and_damage_are_problems_of_their_picture(tmp_path: Path) -> None:
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    Image.new("RGB", (8, 8)).save(small)
    Image.new("RGB", (16, 8)).save(large)
    wrong = read(Case("x", "", small, hq=large), 0)
    assert wrong.problem is not None and "8 x 8" in wrong.problem[1] and "16 x 8" in wrong.problem[1]
    wrong = read(Case("x", "", small), 512)
    assert wrong.problem == ("wrong size", "512 x 512 px were expected: restored 8 x 8")
    small.write_bytes(small.read_bytes()[:40])
    wrong = read(Case("x", "", small), 0)
    assert wrong.problem is not None and wrong.problem[0] == "unreadable" and "small.png" in wrong.problem[1]


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join([",".join((*COLUMNS, "x1")), *rows]) + "\n")
    return path


ROW = "38.0,52,74,52,56.5,72,42,92,71,92,0"


def test_landmarks_are_found_by_subset_and_name_and_names_stay_text(tmp_path: Path) -> None:
    found = read_landmarks(table(tmp_path / "t.csv", f"0060,Wider-Test,{ROW}", f"a.b,LFW-Test,{ROW}"))
    assert found.of(Case("Wider-Test/0060", "Wider-Test", tmp_path)) == (
        (38.0, 52.0), (74.0, 52.0), (56.5, 72.0), (42.0, 92.0), (71.0, 92.0),
    )  # fmt: skip
    assert found.of(Case("LFW-Test/0060", "LFW-Test", tmp_path)) is None, "of another subset"
    assert found.of(Case("LFW-Test/a.b", "LFW-Test", tmp_path)) is not None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((f"1,A,{ROW}", f"1,A,{ROW}"), "a second row"),
        ((f"1,A,{ROW.replace('38.0', 'left')}",), "line 2"),
        ((f"1,A,{ROW.replace('38.0', 'nan')}",), "not finite"),
    ],
)
def test_a_bad_table_is_refused_by_its_line(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_landmarks(table(tmp_path / "t.csv", *rows))
    (tmp_path / "no.csv").write_text("filename,dataset\n")
    with pytest.raises(DataError, match="left_eye_x"):
        read_landmarks(tmp_path / "no.csv")


def test_attributes_go_by_path_or_by_a_name_that_is_one_pictures(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("filename,glasses\nA/x,yes\ny.png,no\nelsewhere,no\n")
    assert attributes_of(path, ["A/x", "B/x", "B/y"]) == {"A/x": {"glasses": "yes"}, "B/y": {"glasses": "no"}}
    path.write_text("filename,glasses\nx,yes\n")
    with pytest.raises(ConfigError, match="A/x and B/x"):
        attributes_of(path, ["A/x", "B/x"])
