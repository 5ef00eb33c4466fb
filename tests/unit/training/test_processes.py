"""Trainings in processes: two that do what one does with twice the batch, and one that is killed."""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from facerestore.core.errors import ConfigError
from facerestore.recipes.training import face_unet
from facerestore.training import Job, Trainer
from facerestore.training.split import split

SCRIPT = Path(__file__).with_name("launched.py")
REPO = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}


def script() -> Any:
    spec = importlib.util.spec_from_file_location("launched", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def alone(faces: Path, output: Path, batch_size: int, max_steps: int, *optimizers: str) -> None:
    for name in optimizers:
        job = script().job(str(faces), str(output / name), name, batch_size, max_steps)
        assert Trainer(job, device="cpu").fit()


def together(faces: Path, output: Path, *settings: str, **environment: str) -> None:
    """Two processes with the environment that launchers of torch and accelerate give them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    world |= {"ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, str(SCRIPT), str(faces), str(output), *settings]
    both = [
        subprocess.Popen(
            command,
            env={**ENVIRONMENT, **world, **environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in both:
        _, said = process.communicate(timeout=240)
        assert process.returncode == 0, said[-3000:]


def launcher_sets(config: str) -> dict[str, str]:
    """What `accelerate launch` puts into the environment for FSDP with a file of the examples."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    file = str(REPO / "examples" / "accelerate" / config)
    arguments = launch_command_parser().parse_args(
        ["--config_file", file, "-m", "facerestore", "train", "list"]
    )
    environment = prepare_multi_gpu_env(_validate_launch_command(arguments)[0])
    return {name: value for name, value in environment.items() if "FSDP" in name}


def weights(output: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(output / "checkpoints" / f"step-{step:08d}" / "weights.safetensors")


def losses(output: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "generator/l1" in line]


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(faces: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    alone(faces, one, 4, 2, "sgd", "adamw")
    together(faces, two, "2", "2", "sgd", "adamw")
    # Plain SGD with a rate of 1: what a step moves is its gradient, reduced over the processes.
    for step, tolerance in ((1, 1e-6), (2, 1e-5)):
        ours, theirs = weights(one / "sgd", step), weights(two / "sgd", step)
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert torch.allclose(value, theirs[name], atol=tolerance, rtol=1e-5), (step, name)
        (filled,) = (value for name, value in theirs.items() if name.endswith("/filled"))
        assert int(filled) == 4 * step  # the queue of the FID proxy holds what both have seen
    for name in ("sgd", "adamw"):
        for ours, theirs in zip(losses(one / name), losses(two / name), strict=True):
            for side in (ours, theirs):
                side.pop("generator/fid_proxy")  # statistics of a pass of 4 are no mean of those of 2
            assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.slow
def test_what_is_frozen_is_split_and_nothing_else_changes(faces: Path, tmp_path: Path) -> None:
    whole, split = tmp_path / "whole", tmp_path / "split"
    together(faces, whole, "2", "2", "adamw")
    together(faces, split, "2", "2", "adamw", **launcher_sets("fsdp.yaml"))
    ours, theirs = weights(whole / "adamw", 2), weights(split / "adamw", 2)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], atol=1e-6), name
    for one, other in zip(losses(whole / "adamw"), losses(split / "adamw"), strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    sheets = [sorted(path.name for path in (run / "adamw" / "sheets").iterdir()) for run in (whole, split)]
    assert sheets[0] == sheets[1]  # all processes restored them, one wrote them


def test_engines_that_do_not_fit_are_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
        with pytest.raises(ConfigError, match="several players train in turns"):
            Trainer(job, device="cpu")
    task, device = Trainer(job, device="cpu").task, torch.device("cpu")
    with pytest.raises(ConfigError, match="this training has 1 and 1"):
        split(task, device, 1)
    with pytest.raises(ConfigError, match="has 2 and 0 of these"):
        split(Trainer(face_unet_of(job), device="cpu").task, device, 2)


def face_unet_of(job: Job) -> Job:
    small = face_unet(job.data.faces, job.output_dir + "-unet").tiny()
    return replace(small, data=replace(small.data, held_back=0.2))


@pytest.mark.slow
def test_a_killed_training_goes_on_bit_for_bit(faces: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    alone(faces, whole, 2, 5, "adamw")
    command = [sys.executable, str(SCRIPT), str(faces), str(killed), "2", "5", "adamw"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "2":  # in the midst of saving it, or of step 3
                time.sleep(0.02)
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    alone(faces, killed, 2, 5, "adamw")
    ours, theirs = weights(whole / "adamw", 5), weights(killed / "adamw", 5)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert losses(whole / "adamw") == losses(killed / "adamw")
