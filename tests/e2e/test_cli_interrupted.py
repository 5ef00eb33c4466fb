"""Runs that are interrupted, terminated, killed and repeated, as real processes on real pictures."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from facerestore.cli.main import app

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def crops(aligned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve face crops in a tree; small, so that each takes about a second."""
    folder = tmp_path_factory.mktemp("crops")
    (folder / "more").mkdir()
    sources = sorted(aligned.iterdir())
    for number in range(12):
        image = Image.open(sources[number % len(sources)]).convert("RGB").rotate(3 * (number // len(sources)))
        image.resize((128, 128)).save(folder / ("more" if number % 2 else "") / f"{number:02}.png")
    return folder


def arguments(crops: Path, out: Path) -> list[str]:
    smallest = "stage.stages.0.entry_px=128"
    return ["restore", str(crops), "-o", str(out), "--aligned", "--threads", "1", "--set", smallest]


def start(crops: Path, out: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "facerestore", *arguments(crops, out)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background of a shell ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def lines(out: Path) -> list[dict[str, Any]]:
    """The whole lines of the manifest, as it stands."""
    path = out / "manifest.jsonl"
    text = path.read_text("utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def wait_for(run: "subprocess.Popen[str]", out: Path, count: int) -> None:
    """Wait until the manifest has `count` lines."""
    deadline = time.monotonic() + 240
    while len(lines(out)) < count:
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.02)


def assert_all_whole(out: Path) -> None:
    """Every file that has an output's name is the file that the manifest describes."""
    known = {row["output"]: row["output_sha256"] for row in lines(out)}
    for path in out.rglob("*.png"):
        if ".facerestore" not in str(path.relative_to(out)):
            content = path.read_bytes()
            assert hashlib.sha256(content).hexdigest() == known[path.relative_to(out).as_posix()]


def test_interrupted_terminated_killed_and_completed(crops: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    run = start(crops, out)
    wait_for(run, out, 1)
    second = CliRunner().invoke(app, arguments(crops, out))  # meanwhile, into the same folder
    assert second.exit_code == 2
    assert f"process {run.pid}" in second.stderr
    run.send_signal(signal.SIGINT)  # Ctrl-C
    _, errors = run.communicate(timeout=240)
    assert run.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted" in errors
    interrupted_at = len(lines(out))
    assert 1 <= interrupted_at < 12
    assert not list(out.rglob(".facerestore*"))
    assert_all_whole(out)

    run = start(crops, out)
    wait_for(run, out, interrupted_at + 1)
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=240)
    assert run.returncode == 130
    assert "Traceback" not in errors
    assert_all_whole(out)

    terminated_at = len(lines(out))
    run = start(crops, out)
    wait_for(run, out, terminated_at + 1)
    run.kill()
    run.communicate()
    assert_all_whole(out)
    killed_at = {row["output"] for row in lines(out) if (out / row["output"]).exists()}
    assert len(killed_at) < 12

    last = CliRunner().invoke(app, arguments(crops, out))
    assert last.exit_code == 0, last.stderr
    assert f"12 restored, {len(killed_at)} of them done before" in last.stdout
    assert_all_whole(out)
    made = [row["output"] for row in lines(out)]
    assert len(set(made)) == 12
    assert len(made) <= 13  # nothing twice, but the picture that was in hand when it was killed
    assert not list(out.rglob(".facerestore*"))
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.png")} == set(made)
