"""`facerestore train` as users run it: from nothing, stopped, resumed, misused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).parents[2]
SMALL = ("size_px=64", "data.degraded_px=64", "task.stage.square_px=64", "data.held_back=0.3", "batch_size=2")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(*arguments: str) -> list[str]:
    settings = [part for text in SMALL for part in ("--set", text)]
    return [
        sys.executable,
        "-m",
        "facerestore",
        "train",
        "face-unet",
        "--device",
        "cpu",
        *settings,
        *arguments,
    ]


def trained(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=ENVIRONMENT, capture_output=True, text=True, timeout=240, check=False
    )


def test_a_training_is_stopped_resumed_and_exported(tmp_path: Path) -> None:
    faces, folder = str(REPO / "examples" / "faces"), tmp_path / "run"
    long = command("--faces", faces, "-o", str(folder), "--set", "max_steps=100000", "--set", "log_every=1")
    long += ["--set", "task.generator.schedule=constant"]
    with subprocess.Popen(long, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        log = folder / "log.jsonl"
        while not (log.is_file() and "generator/l1" in log.read_text()):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "saved; the same command goes on from here" in said
    (saved,) = (folder / "checkpoints").iterdir()
    step = int(saved.name.removeprefix("step-"))

    settings = ["--set", "task.generator.schedule=constant", "--set", f"max_steps={step + 1}"]
    done = trained("--faces", faces, "-o", str(folder), *settings)
    assert done.returncode == 0, done.stderr
    assert f"from step {step}" in done.stderr
    files = [Path(line) for line in done.stdout.splitlines()]
    assert files[-1].name == "README.md"
    assert all(path.is_file() for path in files)
    run = json.loads((folder / "run.json").read_text())
    assert (run["state"], run["step"]) == ("done", step + 1)

    other = trained("--faces", faces, "-o", str(folder), *settings, "--set", "seed=7")
    assert other.returncode == 2
    assert "seed was 0 and is 7" in other.stderr


def test_wrong_use_is_said_in_one_line(tmp_path: Path) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "facerestore", "train", "list"], capture_output=True, text=True, check=False
    )
    assert {"osdface", "mipluscv-detail", "bvi"} <= {line.split()[0] for line in listed.stdout.splitlines()}
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ((), "set data.faces to a folder"),
        (("--faces", str(tmp_path / "empty")), "no usable picture"),
        (
            ("--faces", str(tmp_path), "--set", "task.generator.learning_rat=1"),
            "did you mean 'learning_rate'?",
        ),
    ):
        run = trained(*arguments, "-o", str(tmp_path / "run"))
        assert run.returncode == 2, run.stderr
        assert said in run.stderr
        assert "Traceback" not in run.stderr
        assert not (tmp_path / "run").exists()
