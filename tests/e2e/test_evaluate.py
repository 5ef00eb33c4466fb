"""`facerestore evaluate` as users run it: a set of five folders, degraded, restored, measured, compared."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

REPO = Path(__file__).parents[2]
FOLDERS = ("CelebA", "Wider-Test", "LFW-Test", "WebPhoto-Test", "CelebChild-Test")
QUICK = ("--set", "stage.stages.0.entry_px=128")
PROTOCOL = """
name = "one-each"
base = "ntire2026-code"
[subsets]
CelebA = 1
Wider-Test = 1
LFW-Test = 1
WebPhoto-Test = 1
CelebChild-Test = 1
[thresholds]
CelebA = 0.5
Wider-Test = 0.2
"""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "facerestore", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "report.json").read_text())


def assert_near(table: dict[str, Any], other: dict[str, Any]) -> None:
    """Means are equal up to what other neighbours in a batch change."""
    for subset, means in table.items():
        for name, mean in means.items():
            assert mean == {
                **other[subset][name],
                "value": pytest.approx(other[subset][name]["value"], abs=1e-4),
            }


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`hq`, and `lq` made of it by the command that users have: a face in each of five folders."""
    root = tmp_path_factory.mktemp("set")
    faces = sorted((REPO / "examples" / "faces").iterdir())
    for folder, face in zip(FOLDERS, faces, strict=False):
        target = root / "hq" / folder / "0000.png"
        target.parent.mkdir(parents=True)
        with Image.open(face) as image:
            image.convert("RGB").save(target)
    done = run("degrade", str(root / "hq"), "-o", str(root / "lq"), "--preset", "gfpgan", "--seed", "3")
    assert done.returncode == 0, done.stderr
    (root / "one.toml").write_text(PROTOCOL)
    return root


@pytest.fixture(scope="module")
def restored(five: Path) -> Path:
    """The whole way in one command: restored by `lite`, measured, reported."""
    arguments = ("--protocol", str(five / "one.toml"), "--recipe", "lite", "-o", str(five / "out"), *QUICK)
    done = run("evaluate", *arguments, "--lq", str(five / "lq"), "--hq", str(five / "hq"))
    assert done.returncode == 0, done.stderr
    assert "niqe-basicsr" in done.stdout and "identity failures" in done.stdout
    return five / "out"


def test_one_command_restores_measures_and_writes_every_report(restored: Path) -> None:
    names = {path.name for path in restored.iterdir()}
    assert {"report.json", "report.md", "report.html", "pictures.csv"} <= names
    assert {"out--restored.csv", "out--restored_total.csv"} <= names
    found = report(restored)
    assert len(found["pictures"]) == 5
    assert found["problems"] == []
    means = found["table"]["All"]
    assert 2 < means["niqe-basicsr"]["value"] < 20 and means["niqe-basicsr"]["measured"] == 5
    assert 0.2 < means["identity-recognition"]["value"] <= 1
    assert 0.2 < means["identity-description"]["value"] <= 1
    assert found["title"] == "lite" and found["provenance"]["made by"]["seed"] == 0


def test_what_is_not_there_is_named_and_no_stand_in_enters_the_score(restored: Path) -> None:
    found = report(restored)
    assert {"identity-adaface", "fid-ffhq"} <= set(found["absent"])
    assert "adaface/ir50" in found["absent"]["identity-adaface"]
    assert set(found["score"]["missing"]) >= {"niqe", "fid"} - set(found["table"]["All"])
    assert found["accepted"] is None, "AdaFace alone decides"
    assert {each["metric"] for each in found["failures"]} == {"identity-recognition", "identity-description"}


def test_the_same_command_again_measures_nothing_and_finds_the_same(five: Path, restored: Path) -> None:
    before, text = report(restored), (restored / "rows-0.jsonl").read_text()
    lq, hq = str(five / "lq"), str(five / "hq")
    again = run(
        "evaluate", "--protocol", str(five / "one.toml"), "--recipe", "lite", "-o", str(restored),
        "--lq", lq, "--hq", hq, *QUICK,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert (restored / "rows-0.jsonl").read_text() == text
    assert report(restored) == before


def test_a_run_that_was_cut_off_goes_on_and_a_changed_picture_is_measured_again(
    five: Path, restored: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(restored, folder)
    pictures = folder / "restored"
    arguments = ("evaluate", str(pictures), "--protocol", str(five / "one.toml"), "-o", str(folder))
    arguments += ("--lq", str(five / "lq"), "--hq", str(five / "hq"))
    rows = folder / "rows-0.jsonl"
    lines = rows.read_text().splitlines()
    assert len(lines) == 5
    whole = report(folder)
    rows.write_text("\n".join(lines[:2]) + "\n" + lines[2][:60])  # killed while it wrote the third
    assert run(*arguments).returncode == 0
    assert_near(report(folder)["table"], whole["table"])
    assert len(rows.read_text().splitlines()) == 2 + 1 + 3
    with Image.open(pictures / "CelebA" / "0000.png") as image:
        image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(pictures / "CelebA" / "0000.png")
    run(*arguments)
    assert len(rows.read_text().splitlines()) == 2 + 1 + 3 + 1
    changed = {row["key"]: row["values"] for row in report(folder)["pictures"]}
    assert changed != {row["key"]: row["values"] for row in whole["pictures"]}


def test_two_processes_find_what_one_finds(five: Path, restored: Path, tmp_path: Path) -> None:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "facerestore", "evaluate", str(restored / "restored")]
    command += ["--protocol", str(five / "one.toml"), "-o", str(tmp_path / "two"), "--lq", str(five / "lq")]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(command, env={**os.environ, **world, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert all((tmp_path / "two" / f"rows-{rank}.jsonl").is_file() for rank in (0, 1))
    assert_near(report(tmp_path / "two")["table"], report(restored)["table"])


def test_two_runs_are_compared(five: Path, restored: Path, tmp_path: Path) -> None:
    """The degraded pictures themselves against the restored ones: identity to them is perfect."""
    done = run(
        "evaluate", str(five / "lq"), "--protocol", str(five / "one.toml"), "-o", str(tmp_path),
        "--lq", str(five / "lq"), "--hq", str(five / "hq"), "--compare", str(restored / "report.json"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = report(tmp_path)["comparisons"].values()
    by_metric = {each["metric"]: each for each in found}
    assert by_metric["identity-description"]["second"] == pytest.approx(1, abs=1e-5)
    assert by_metric["identity-description"]["difference"] > 0


def test_wrong_use_is_status_2_and_begins_nothing(five: Path, tmp_path: Path) -> None:
    for arguments, said in (
        (("evaluate",), "--recipe"),
        (("evaluate", str(five / "lq"), "--protocol", "ntire2027"), "ntire2025"),
        (("evaluate", str(tmp_path / "none"), "-o", str(tmp_path / "o")), "no such folder"),
    ):
        done = run(*arguments)
        assert done.returncode == 2 and said in done.stderr, done.stderr
    (tmp_path / "bad.toml").write_text("Nowhere = 0.5\n")
    done = run(
        "evaluate", str(five / "lq"), "--lq", str(five / "lq"), "-o", str(tmp_path / "o"),
        "--thresholds", str(tmp_path / "bad.toml"),
    )  # fmt: skip
    assert done.returncode == 2 and "Nowhere is no subset" in done.stderr
    assert not (tmp_path / "o").exists()


def test_missing_and_damaged_pictures_are_named_and_the_rest_is_measured(
    five: Path, restored: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "restored"
    shutil.copytree(restored / "restored", pictures)
    (pictures / "CelebA" / "0000.png").unlink()
    whole = (pictures / "Wider-Test" / "0000.png").read_bytes()
    (pictures / "Wider-Test" / "0000.png").write_bytes(whole[:5000])
    with Image.open(pictures / "LFW-Test" / "0000.png") as image:
        image.resize((500, 512)).save(pictures / "LFW-Test" / "0000.png")
    with Image.open(pictures / "WebPhoto-Test" / "0000.png") as image:
        image.putalpha(128)
        image.save(pictures / "WebPhoto-Test" / "0000.png")
    (pictures / "Other").mkdir()
    shutil.copy(pictures / "WebPhoto-Test" / "0000.png", pictures / "Other" / "x.png")
    done = run(
        "evaluate", str(pictures), "--protocol", str(five / "one.toml"), "-o", str(tmp_path / "o"),
        "--lq", str(five / "lq"),
    )  # fmt: skip
    assert done.returncode == 1
    found = report(tmp_path / "o")
    named = {(each["kind"], each["key"]) for each in found["problems"]}
    assert {
        ("missing", "CelebA/0000"),
        ("unreadable", "Wider-Test/0000"),
        ("wrong size", "LFW-Test/0000"),
        ("extra", "Other/x"),
    } <= named
    kept = {row["key"]: row for row in found["pictures"]}
    assert len(kept) == 2 and kept["WebPhoto-Test/0000"]["converted"] == ["restored: alpha left out"]
    assert found["partial"]
