"""A wheel built from the checkout restores a photo without checkout or network, from an empty folder."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

SHIPPED = "facerestore/weights/shipped/"
NO_NETWORK = """
import socket

def refuse(*args, **kwargs):
    raise OSError("the network is unplugged")

socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = refuse
"""


def run(command: list[str], cwd: Path, **extra: str) -> str:
    ours = ("PYTHON", "FACERESTORE", "HF_")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    done = subprocess.run(command, cwd=cwd, env=kept | extra, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build", reason="build is not installed; it comes with the extra dev")
    pytest.importorskip("hatchling", reason="hatchling is not installed; it comes with the extra dev")
    out = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(repo)], out)
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_wheel_holds_what_it_should(wheel: Path, repo: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {name for name in names if name.startswith(SHIPPED)}
    expected = {*(repo / "weights").glob("*.safetensors"), *(repo / "weights" / "LICENSES").iterdir()}
    assert len(expected) >= 6
    assert shipped == {SHIPPED + path.relative_to(repo / "weights").as_posix() for path in expected}
    assert {"facerestore/py.typed", "facerestore/weights/manifest.toml"} <= names
    assert {name.split("/")[0] for name in names} == {"facerestore", "facerestore-0.1.0.dist-info"}


@pytest.mark.slow
def test_installed_wheel_restores_a_photo_offline(wheel: Path, photos: Path, tmp_path: Path):
    place = tmp_path / "venv"
    run([sys.executable, "-m", "venv", "--without-pip", str(place)], tmp_path)
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    run([sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index",
         "--disable-pip-version-check", str(wheel)], tmp_path)  # fmt: skip
    (packages,) = (path for path in place.rglob("site-packages") if path.is_dir())
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (packages / "sitecustomize.py").write_text(NO_NETWORK)
    empty = tmp_path / "empty"
    empty.mkdir()
    photo = shutil.copy(photos / "astronaut_thumbnail.jpg", tmp_path / "photo.jpg")

    where = run([str(python), "-c", "import facerestore; print(facerestore.__file__)"], empty).strip()
    assert Path(where).is_relative_to(packages)
    script = python.with_name("facerestore.exe" if os.name == "nt" else "facerestore")
    run([str(script), "restore", str(photo), "-o", str(tmp_path / "out")], empty)
    (restored,) = (tmp_path / "out").glob("photo.*")
    assert restored.read_bytes() != Path(photo).read_bytes()
    assert list(empty.iterdir()) == []
