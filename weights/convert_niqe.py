"""Converts the statistics of NIQE from PyPI package basicsr 1.4.2 (an .npz of NumPy) to `niqe.safetensors`.

    python weights/convert_niqe.py [ARCHIVE] OUT.safetensors

Without ARCHIVE the source archive is downloaded; nothing of it is built or run. Nothing changes but the
format: mean (36,) and covariance (36,36) of natural pictures and the window (7,7), in float64. Needs
numpy, torch and safetensors.
"""

import io
import sys
from pathlib import Path

import numpy as np
import torch
from packages import pip_source, read_member
from safetensors.torch import save_file

PACKAGE = "basicsr==1.4.2"
MEMBER = "basicsr-1.4.2/basicsr/metrics/niqe_pris_params.npz"


def convert(package: Path) -> dict[str, torch.Tensor]:
    """The three tensors."""
    with np.load(io.BytesIO(read_member(package, MEMBER)), allow_pickle=False) as arrays:
        names = {"mean": "mu_pris_param", "covariance": "cov_pris_param", "window": "gaussian_window"}
        return {ours: torch.from_numpy(np.squeeze(arrays[theirs]).copy()) for ours, theirs in names.items()}


def main(archive: str | None, out: str) -> None:
    """Write the safetensors file, which orders its tensors itself: equal tensors, equal bytes."""
    with pip_source(PACKAGE, archive) as package:
        save_file(convert(package), out)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    main(sys.argv[1] if len(sys.argv) == 3 else None, sys.argv[-1])
