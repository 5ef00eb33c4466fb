"""What importing costs in fresh interpreters: CPU seconds, the least of five, whatever else is running."""

import os
import subprocess
import sys

import pytest

RUNS = 5
IMPORT_SECONDS = 0.3
HELP_SECONDS = 0.6
NEVER_FOR_RESTORING = frozenset(
    ["torchvision", "diffusers", "transformers", "peft", "accelerate", "lpips", "scipy", "skimage", "pyiqa"]
)
HEAVY = NEVER_FOR_RESTORING | frozenset(["torch", "numpy", "PIL", "huggingface_hub", "typer", "rich"])


def python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""  # importing warns of nothing
    return run.stdout.strip()


def loaded(code: str, names: frozenset[str]) -> set[str]:
    return set(
        python(f"import sys\n{code}\nprint(*[n for n in {sorted(names)!r} if n in sys.modules])").split()
    )


def test_import_is_quick():
    code = "import time; t = time.process_time(); import facerestore; print(time.process_time() - t)"
    assert min(float(python(code)) for _ in range(RUNS)) <= IMPORT_SECONDS


def test_import_loads_nothing_heavy():
    assert loaded("import facerestore", HEAVY) == set()
    assert loaded("import torch", HEAVY) >= {"torch"}  # the probe can see


@pytest.mark.parametrize("module", ["core.config", "weights.spec", "weights.store", "cli.main"])
def test_module_loads_no_torch(module: str):
    assert "torch" not in loaded(f"import facerestore.{module}", HEAVY)


@pytest.mark.parametrize("module", ["pipeline", "recipes", "stages.realesrgan", "batch", "report", "losses"])
def test_restoring_loads_only_what_it_uses(module: str):
    assert loaded(f"import facerestore.{module}", NEVER_FOR_RESTORING) == set()


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="CPU time of a child is not told on this system")
def test_help_is_quick():
    seconds: list[float] = []
    for _ in range(RUNS):
        command = [sys.executable, "-m", "facerestore", "--help"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert b"restore" in child.stdout.read()
        child.stdout.close()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode == 0
        seconds.append(usage.ru_utime + usage.ru_stime)
    assert min(seconds) <= HELP_SECONDS


def test_every_public_name_works_after_loading():
    code = (
        "import facerestore as fr\n"
        "from facerestore import recipes\n"
        "recipes.get('lite').tiny().build(device='cpu')\n"
        "print(*[n for n in fr.__all__ if getattr(fr, n, None) is None])\n"
        "print(callable(fr.load), callable(fr.list_recipes), isinstance(fr.Pipeline, type))"
    )
    assert python(code) == "True True True"
