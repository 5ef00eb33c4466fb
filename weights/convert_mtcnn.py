"""Convert the networks of MTCNN into weights/mtcnn.safetensors, byte for byte the same on every machine.

    python weights/convert_mtcnn.py OUT                 # asks pip for PyPI facenet-pytorch 2.6.0 first
    python weights/convert_mtcnn.py PACKAGE_FILE OUT    # a wheel that is already here

Three state dicts of the package (`facenet_pytorch/data/{pnet,rnet,onet}.pt`, MIT) become one file; their keys get the
prefixes `pnet.`, `rnet.` and `onet.`. Nothing else changes.
"""

import argparse
import hashlib
import logging
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file

from facerestore.weights.load import read_tensors

logger = logging.getLogger("convert_mtcnn")

PACKAGE = "facenet-pytorch==2.6.0"
MEMBERS = {name: f"facenet_pytorch/data/{name}.pt" for name in ("pnet", "rnet", "onet")}


def convert(wheel: Path, out: Path) -> str:
    """Write `out` from the package file `wheel` and return the sha256 of what was written."""
    tensors: dict[str, torch.Tensor] = {}
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        for prefix, member in MEMBERS.items():
            for key, tensor in read_tensors(archive.extract(member, folder)).items():
                # A copy, because what is mapped from the temporary file must not outlive it.
                tensors[f"{prefix}.{key}"] = tensor.to(torch.float32, copy=True).contiguous()
    save_file(tensors, out)  # orders the tensors itself, so equal tensors give equal bytes
    return hashlib.sha256(out.read_bytes()).hexdigest()


def download(folder: Path) -> Path:
    """Let pip fetch the package, without what it depends on."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), PACKAGE]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def main() -> None:
    """Read the command line and convert."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Convert the networks of MTCNN to safetensors.")
    parser.add_argument("package_file", nargs="?", type=Path, help=f"the wheel of {PACKAGE}; without it pip fetches it")
    parser.add_argument("out", type=Path, help="the file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        digest = convert(arguments.package_file or download(Path(folder)), arguments.out)
    logger.info("%s: %d bytes, sha256 %s", arguments.out, arguments.out.stat().st_size, digest)


if __name__ == "__main__":
    main()
