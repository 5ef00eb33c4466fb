"""`facerestore data`: what a trainer would read, and component files."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from facerestore.cli.main import app
from facerestore.data import read_components, read_statistics
from facerestore.nets.fid_inception import FidInception
from facerestore.weights.write import write_tensors


def cli(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def folder(aligned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two faces, a picture without one, a grey and a broken one."""
    top = tmp_path_factory.mktemp("set")
    for name in ("hopper_x8.png", "astronaut_x8.png"):
        Image.open(aligned / name).convert("RGB").resize((256, 256)).save(top / name)
    Image.linear_gradient("L").resize((256, 256)).save(top / "grey.png")
    Image.merge("RGB", [Image.linear_gradient("L").rotate(90 * k) for k in range(3)]).save(top / "nobody.png")
    (top / "bro\x1b[31mken.jpg").write_text("no picture")
    return top


def test_check_says_what_is_used_and_why_not_the_rest(folder: Path, tmp_path: Path) -> None:
    result = cli("data", "check", folder, "--report", tmp_path / "r.csv", "--record", tmp_path / "seen.json")
    assert result.exit_code == 0
    assert "3 of 5 are used" in result.stdout
    assert "1 grey (grey.png)" in result.stdout
    assert "\x1b" not in result.stdout
    with (tmp_path / "r.csv").open(newline="") as stream:
        assert [row["reason"] for row in csv.DictReader(stream)] == ["unreadable", "grey"]
    assert len(json.loads((tmp_path / "seen.json").read_text())) == 4
    faces = cli(
        "data", "check", folder, "--min-face-px", 100, "--measures", tmp_path / "m.csv",
        "--record", tmp_path / "seen.json",
    )  # fmt: skip
    assert "2 of 5 are used" in faces.stdout
    assert "1 no face (nobody.png)" in faces.stdout
    assert len((tmp_path / "m.csv").read_text().splitlines()) == 4
    assert len(json.loads((tmp_path / "seen_faces.json").read_text())) == 3
    none = cli("data", "check", folder, "--min-px", 1000)
    assert none.exit_code == 2
    assert "no usable picture" in none.stderr
    assert cli("data", "check", folder, "--max-blur-px", -1).exit_code == 2
    assert cli("data", "check", folder / "nowhere").exit_code == 2


def test_statistics_of_real_faces_are_measured(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = cli("data", "statistics", folder, "-o", tmp_path / "real.safetensors")
    assert missing.exit_code != 0
    assert "fid-inception" in missing.stderr
    torch.manual_seed(0)
    net = FidInception(FidInception.Config())
    write_tensors(tmp_path / "weights" / "fid-inception.safetensors", net.state_dict(), {})
    monkeypatch.setenv("FACERESTORE_WEIGHTS", str(tmp_path / "weights"))
    result = cli("data", "statistics", folder, "-o", tmp_path / "real.safetensors", "--size-px", 128)
    assert result.exit_code == 0, result.stderr
    assert "3 faces" in result.stdout
    assert "grey.png" in result.stderr
    mean, variance = read_statistics(tmp_path / "real.safetensors")
    assert mean.shape == variance.shape == (2048,)
    assert float(variance.max()) > 0


def test_components_are_found_or_made_of_points(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "components.json"
    result = cli("data", "components", folder, "-o", target, "--size-px", 256)
    assert result.exit_code == 0
    assert "2 faces" in result.stdout
    assert "no parts (grey.png, nobody.png)" in result.stderr
    found = read_components(target)
    assert (found.size_px, sorted(found.faces)) == (256, ["astronaut_x8.png", "hopper_x8.png"])
    points = ",".join(str(100 + k) for k in range(136))
    (tmp_path / "points.csv").write_text(f"hopper_x8.png,{points}\n")
    made = cli(
        "data", "components", folder, "-o", tmp_path / "c.pth", "--landmarks", tmp_path / "points.csv",
        "--from-px", 1024,
    )  # fmt: skip
    assert "1 faces" in made.stdout
    assert list(read_components(tmp_path / "c.pth").faces) == ["00000003"]
    assert cli("data", "components", folder, "-o", tmp_path / "c.txt").exit_code == 2
    assert cli("data", "components", folder, "-o", target, "--from-px", 5).exit_code == 2
