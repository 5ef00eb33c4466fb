"""`facerestore degrade`: the same bytes from the same seed, what fails is named, what is done stays done."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from facerestore.cli.main import app


def cli(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def pictures(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two faces in a tree, one too small, one broken."""
    folder = tmp_path_factory.mktemp("degrade") / "hq"
    (folder / "more").mkdir(parents=True)
    with Image.open(repo / "tests" / "data" / "faces" / "grace_hopper.jpg") as face:
        face.convert("RGB").resize((96, 80)).save(folder / "a.jpg")
        face.convert("L").resize((64, 64)).save(folder / "more" / "b.png")
        face.convert("RGB").resize((20, 20)).save(folder / "small.png")
    (folder / "broken.jpg").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def first_run(pictures: Path) -> Any:
    return cli("degrade", pictures, "-o", pictures.parent / "out", "--preset", "gfpgan", "--seed", 3)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.png"))}


def rows(folder: Path) -> dict[str, Any]:
    lines = (folder / "manifest.jsonl").read_text("utf-8").splitlines()
    return {row["output"]: row for row in map(json.loads, lines)}


def test_what_fails_is_named_and_the_rest_is_done(pictures: Path, first_run: Any) -> None:
    assert first_run.exit_code == 1
    assert "broken.jpg" in first_run.stderr
    assert "32 px" in first_run.stderr
    assert "Traceback" not in first_run.stderr
    assert "2 degraded" in first_run.stdout and "2 failed" in first_run.stdout
    out = pictures.parent / "out"
    assert set(contents(out)) == {"a.png", "more/b.png"}
    assert Image.open(out / "a.png").size == (96, 80)


def test_the_manifest_says_what_was_drawn(pictures: Path, first_run: Any) -> None:
    written = rows(pictures.parent / "out")
    drawn = written["a.png"]["drawn"]
    assert drawn["kernel"]["size"] == 41
    assert 0.8 <= drawn["downsample"] <= 8
    assert drawn["seed"] != written["more/b.png"]["drawn"]["seed"]
    assert written["a.png"]["run"]["degradation"]["quality"] == [60.0, 100.0]
    assert written["broken.png"]["status"] == "failed"


def test_the_same_seed_gives_the_same_bytes_in_any_company(
    pictures: Path, first_run: Any, tmp_path: Path
) -> None:
    again = cli("degrade", pictures / "a.jpg", "-o", tmp_path / "one", "--preset", "gfpgan", "--seed", 3)
    assert again.exit_code == 0
    assert contents(tmp_path / "one")["a.png"] == contents(pictures.parent / "out")["a.png"]
    cli("degrade", pictures / "a.jpg", "-o", tmp_path / "two", "--preset", "gfpgan", "--seed", 4)
    assert contents(tmp_path / "two")["a.png"] != contents(tmp_path / "one")["a.png"]


def test_what_is_done_and_intact_is_not_done_again(pictures: Path, tmp_path: Path) -> None:
    command = ("degrade", pictures / "a.jpg", pictures / "more", "-o", tmp_path, "--preset", "vqfr")
    assert cli(*command).exit_code == 0
    before = contents(tmp_path)
    (tmp_path / "b.png").write_bytes(b"")
    again = cli(*command)
    assert again.exit_code == 0
    assert "2 degraded, 1 of them done before" in again.stdout
    assert contents(tmp_path) == before
    other = cli(*command, "--seed", 1)
    assert "before" not in other.stdout
    assert all(contents(tmp_path)[name] != content for name, content in before.items())


def test_a_file_that_no_run_wrote_is_not_replaced(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("mine")
    result = cli("degrade", pictures / "a.jpg", "-o", tmp_path, "--preset", "vqfr")
    assert result.exit_code == 1
    assert "no run wrote it" in result.stderr
    assert (tmp_path / "a.png").read_text() == "mine"


def test_settings_and_option_files(pictures: Path, tmp_path: Path) -> None:
    options = tmp_path / "train.yml"
    options.write_text(
        "datasets: {train: {blur_kernel_size: 21, kernel_list: [iso], kernel_prob: [1.0], blur_sigma: [1, 2],"
        " downsample_range: [2, 4], noise_range: ~, jpeg_range: [40, 60]}}"
    )
    result = cli(
        "degrade", pictures / "a.jpg", "-o", tmp_path / "out", "--preset", options, "--set", "jpeg=codec"
    )
    assert result.exit_code == 0
    row = rows(tmp_path / "out")["a.png"]
    assert row["drawn"]["noise_sigma"] is None
    assert row["run"]["degradation"]["jpeg"] == "codec"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "gfpgam"], "did you mean 'gfpgan'"),
        (["--preset", "gone.yml"], "gone.yml"),
        (["--preset", "gfpgan", "--set", "nonsense=1"], "nonsense"),
        (["--preset", "gfpgan", "--set", "jpeg=png"], "dct, codec"),
        (["--preset", "gfpgan", "--device", "tpu"], "tpu"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_clear_line_and_status_2(
    pictures: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = cli("degrade", pictures, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_outputs_that_cannot_be(pictures: Path, tmp_path: Path) -> None:
    over = cli("degrade", pictures / "more", "-o", pictures / "more", "--preset", "vqfr")
    assert over.exit_code == 2
    assert "replace the input" in over.stderr
    (tmp_path / "empty").mkdir()
    nothing = cli("degrade", tmp_path / "empty", "-o", tmp_path / "out", "--preset", "vqfr")
    assert nothing.exit_code == 2
    assert "no picture" in nothing.stderr
