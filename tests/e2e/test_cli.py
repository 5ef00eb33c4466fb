"""The command line, in process: what it prints, what it writes, how it ends."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from facerestore.cli.main import app


def cli(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def mixed(aligned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face, a picture without one, and a broken one, with names that try their luck."""
    folder = tmp_path_factory.mktemp("mixed")
    Image.open(aligned / "hopper_soft_grain.jpg").convert("RGB").resize((160, 160)).save(
        folder / "[red]家.png"
    )
    Image.new("RGB", (80, 60), (40, 120, 90)).save(folder / "plain.jpg")
    (folder / "bro\x1b[31mken.jpg").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def first_run(mixed: Path) -> Any:
    """`restore` of the mixed folder by the default recipe, with a report."""
    return cli("restore", mixed, "-o", mixed.parent / "out", "--report", "--threads", 1)


def test_restore_names_what_failed_and_does_the_rest(mixed: Path, first_run: Any) -> None:
    assert first_run.exit_code == 1
    out = mixed.parent / "out"
    assert {path.name for path in out.iterdir()} == {
        "[red]家.png",
        "plain.jpg",
        "manifest.jsonl",
        "report.html",
    }
    assert "failed: " in first_run.stderr
    assert "ken.jpg" in first_run.stderr
    assert "Traceback" not in first_run.stderr
    assert "\x1b[31m" not in first_run.stderr + first_run.stdout  # a name does not steer the terminal
    lines = first_run.stdout.splitlines()
    assert next(line for line in lines if "[red]家.png" in line).split()[-1] == "restored"
    assert "no face" in next(line for line in lines if "plain.jpg" in line)
    assert "1 restored" in lines[-1]
    assert "1 failed" in lines[-1]


def test_the_manifest_says_how_it_was_made(mixed: Path, first_run: Any) -> None:
    rows = [
        json.loads(line) for line in (mixed.parent / "out/manifest.jsonl").read_text("utf-8").splitlines()
    ]
    restored = next(row for row in rows if row["status"] == "restored")
    assert restored["run"]["recipe"] in ("lite", "realesrgan")
    assert set(restored["run"]["weights"]) >= {"realesrgan-x4plus", "mtcnn", "face-recognition"}
    assert restored["faces"][0]["identity_distance"] < 0.6


def test_the_report_has_every_picture(mixed: Path, first_run: Any) -> None:
    text = (mixed.parent / "out/report.html").read_text("utf-8")
    assert text.count('type="range"') == 1
    assert "Failed: " in text
    assert "no evidence of who somebody is" in text


def test_the_same_command_again_resumes(mixed: Path, first_run: Any) -> None:
    before = (mixed.parent / "out/[red]家.png").stat().st_mtime_ns
    again = cli("restore", mixed, "-o", mixed.parent / "out", "--report")
    assert again.exit_code == 1  # the broken one is tried again
    assert "2 of them done before" in again.stdout
    assert (mixed.parent / "out/[red]家.png").stat().st_mtime_ns == before
    text = (mixed.parent / "out/report.html").read_text("utf-8")
    assert text.count('type="range"') == 1  # the report tells of the whole folder, not of the last run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "litte"], "did you mean 'lite'"),
        (["--set", "nonsense=1"], "nonsense"),
        (["--set", "nonsense"], "NAME=VALUE"),
        (["--weights", "mtcn=x"], "did you mean 'mtcnn'"),
        (["--weights", "mtcnn=gone.safetensors"], "gone.safetensors"),
        (["--weights", "base=."], "no weight named 'base'"),
        (["--adapter", "gone.safetensors"], "gone.safetensors"),
        (["--adapter", "osdface/lora"], "no stage of realesrgan takes adapters"),
        (["--strength", "2"], "strength"),
        (["--faces", "many"], "--faces"),
        (["--upscale", "3"], "upscale"),
        (["--background", "blur"], "background"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--device", "tpu"], "tpu"),
        (["--dtype", "fp8"], "fp8"),
        (["--offload", "disk"], "offload"),
        (["--batch-size", "0"], "batch_size"),
        (["--format", "gif"], "format"),
        (["--no-face", "delete"], "no_face"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_use_is_one_clear_line_and_status_2(
    mixed: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = cli("restore", mixed, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list((tmp_path / "out").rglob("*.*"))


def test_inputs_that_are_none_and_outputs_that_cannot_be(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    nothing = cli("restore", tmp_path / "empty", "-o", tmp_path / "out")
    assert nothing.exit_code == 2
    assert "no picture" in nothing.stderr
    over = cli("restore", mixed, "-o", mixed)
    assert over.exit_code == 2
    assert "replace the input" in over.stderr
    (tmp_path / "file").write_text("")
    closed = cli("restore", mixed, "-o", tmp_path / "file" / "out")
    assert closed.exit_code == 2
    assert str(tmp_path / "file") in closed.stderr
    missing = cli("restore", tmp_path / "gone.jpg", "-o", tmp_path / "out")
    assert missing.exit_code == 1
    assert "gone.jpg" in missing.stderr


def test_the_time_of_a_background_is_said_before_it_starts(mixed: Path, tmp_path: Path) -> None:
    arguments = ("--background", "restore", "--upscale", 2, "--faces", 0, "--format", "png")
    result = cli("restore", mixed / "plain.jpg", "-o", tmp_path, *arguments)
    assert result.exit_code == 0
    assert "background of 1 picture (0.0 megapixels) takes about" in result.stderr
    assert Image.open(tmp_path / "plain.png").size == (160, 120)


def test_recipes_as_table_in_full_and_for_programs() -> None:
    table = cli("recipes")
    assert table.exit_code == 0
    assert "runs offline" in next(line for line in table.stdout.splitlines() if line.startswith("lite"))
    full = cli("recipes", "lite").stdout
    for word in ("min_face_px", "realesrgan-x4plus", "BSD-3-Clause", "PyPI facenet-pytorch"):
        assert word in full
    infos = json.loads(cli("recipes", "--json").stdout)
    assert {info["name"] for info in infos} >= {"lite", "realesrgan"}
    whole = json.loads(cli("recipes", "lite", "--json").stdout)
    assert all(len(weight["sha256"]) == 64 for weight in whole["weights"])
    assert cli("recipes", "nothing").exit_code == 2


def test_every_setting_that_is_shown_can_be_set() -> None:
    from facerestore import recipes

    recipe = recipes.get("lite")
    lines = cli("recipes", "lite").stdout.split("weights:")[0].splitlines()
    settings = [line.strip().split(" = ", 1) for line in lines if " = " in line]
    assert len(settings) > 5
    for path, value in settings:
        assert recipe.override(path, value).fingerprint() == recipe.fingerprint(), path


def test_weights_are_listed_shown_and_verified(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = json.loads(cli("weights", "list", "--json").stdout)
    shipped = {"realesrgan-x4plus", "mtcnn", "face-recognition", "face-description", "dists", "niqe"}
    assert {entry["name"] for entry in listed if not entry["hub"] and entry["found"]} == shipped
    assert {entry["name"] for entry in listed} > {*shipped, "sd21-base/unet", "osdface/lora"}
    assert "MIT" in cli("weights", "list").stdout
    assert listed[0]["sha256"] in cli("weights", "show", listed[0]["name"]).stdout
    assert cli("weights", "verify", "mtcnn").exit_code == 0
    content = bytearray((repo / "weights/mtcnn.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "mtcnn.safetensors").write_bytes(content)
    monkeypatch.setenv("FACERESTORE_WEIGHTS", str(tmp_path))
    damaged = cli("weights", "verify", "mtcnn")
    assert damaged.exit_code == 1
    assert "mtcnn.safetensors" in damaged.stderr
    refused = cli("restore", repo / "examples/photos", "-o", tmp_path / "out")
    assert refused.exit_code == 2
    assert str(tmp_path / "mtcnn.safetensors") in refused.stderr
    assert not (tmp_path / "out").exists()
    doctor = json.loads(cli("doctor", "--json").stdout)
    assert str(tmp_path / "mtcnn.safetensors") in doctor["recipes"][0]["here"]


def test_doctor_tries_what_it_says() -> None:
    facts = json.loads(cli("doctor", "--json").stdout)
    cpu = facts["devices"][0]
    assert cpu["device"] == "cpu"
    assert "fp32" in cpu["dtypes"].split()
    assert "fp16" not in cpu["dtypes"].split()
    assert facts["versions"]["torch"]
    here = {entry["recipe"]: entry["here"] for entry in facts["recipes"]}
    assert here["lite"] == here["realesrgan"] == "runs here"
    assert "sd21-base/unet" in here["osdface"]
    assert facts["weights are looked for in"]
    text = cli("doctor")
    assert text.exit_code == 0
    assert "runs here" in text.stdout


def test_demo_writes_a_row_a_face_the_sheet_and_the_report(aligned: Path, tmp_path: Path) -> None:
    for name, source in (("photos", "hopper_soft_grain.jpg"), ("faces", "hopper_x8.png")):
        (tmp_path / name).mkdir()
        Image.open(aligned / source).convert("RGB").resize((128, 128)).save(tmp_path / name / f"{name}.png")
    out = tmp_path / "demo"
    arguments = ("demo", "-o", out, "--photos", tmp_path / "photos", "--faces", tmp_path / "faces")
    result = cli(*arguments)
    assert result.exit_code == 0
    assert [line.split()[-1] for line in result.stdout.splitlines() if ".png  " in line] == ["restored"] * 2
    assert Image.open(out / "sheet.png").height > 2 * 256
    assert (out / "report.html").read_text("utf-8").count('type="range"') == 2
    assert (out / "photos/photos.png").exists()
    assert (out / "faces/faces.png").exists()
    shutil.rmtree(tmp_path / "faces")
    assert cli(*arguments).exit_code == 1


def test_help_needs_no_torch_and_no_command_line_is_wrong_use() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from facerestore.cli.main import app; "
        "r = CliRunner().invoke(app, ['--help']); assert r.exit_code == 0 and 'restore' in r.output; "
        "assert 'demo' not in r.output; "
        "assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert cli("--version").stdout.startswith("facerestore 0.")
    assert cli("restore").exit_code == 2
    assert cli("nonsense").exit_code == 2
