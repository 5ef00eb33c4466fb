"""Converts the recognition network of npm package @vladmandic/face-api 1.7.15 to safetensors.

    python weights/convert_face_recognition.py [TGZ] OUT.safetensors

Without TGZ the package is downloaded. Quantised tensors stay uint8, each with its scale and minimum beside it
as `KEY.scale_min` (float64); the eight filters that the package holds in float32 stay float32. Filters are
turned from HWIO to OIHW. Needs numpy and safetensors.
"""

import json
import math
import sys

import numpy as np
from packages import npm_package, read_member
from safetensors.numpy import save_file

PACKAGE = "@vladmandic/face-api@1.7.15"
MODEL = "package/model/face_recognition_model"
BLOCKS = ("32_1", "32_2", "32_3", "64_down", "64_1", "64_2", "64_3", "128_down", "128_1", "128_2")
BLOCKS += ("256_down", "256_1", "256_2", "256_down_out")
PARTS = {
    "conv/filters": "conv.weight",
    "conv/bias": "conv.bias",
    "scale/weights": "scale",
    "scale/biases": "shift",
}


def names() -> dict[str, str]:
    """The package's name of every tensor, and ours."""
    found = {f"conv32_down/{theirs}": f"stem.{ours}" for theirs, ours in PARTS.items()}
    for index, block in enumerate(BLOCKS):
        for conv in ("conv1", "conv2"):
            for theirs, ours in PARTS.items():
                found[f"conv{block}/{conv}/{theirs}"] = f"blocks.{index}.{conv}.{ours}"
    return found | {"fc": "fc.weight"}


def convert(manifest: list[dict], blob: bytes) -> dict[str, np.ndarray]:
    """Read every tensor of the blob; stop if a name or a byte is left over."""
    ours = names()
    tensors: dict[str, np.ndarray] = {}
    offset = 0
    for entry in manifest[0]["weights"]:
        quantised = entry.get("quantization")
        if entry["dtype"] != "float32" or (quantised and quantised["dtype"] != "uint8"):
            raise SystemExit(f"{entry['name']}: float32 or uint8 expected, the manifest says {entry}")
        values = np.frombuffer(blob, "u1" if quantised else "<f4", math.prod(entry["shape"]), offset)
        offset += values.nbytes
        values = values.reshape(entry["shape"])
        if values.ndim == 4:
            values = values.transpose(3, 2, 0, 1)
        elif values.ndim == 2:
            values = values.T
        key = ours.pop(entry["name"])
        tensors[key] = np.ascontiguousarray(values)
        if quantised:
            tensors[f"{key}.scale_min"] = np.array([quantised["scale"], quantised["min"]], dtype="<f8")
    if ours or offset != len(blob):
        raise SystemExit(f"{len(ours)} tensors are missing, {len(blob) - offset} bytes are left over")
    return tensors


def main(archive: str | None, out: str) -> None:
    """Write the safetensors file."""
    with npm_package(PACKAGE, archive) as package:
        manifest = read_member(package, f"{MODEL}-weights_manifest.json")
        blob = read_member(package, f"{MODEL}.bin")
    save_file(convert(json.loads(manifest), blob), out)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    main(sys.argv[1] if len(sys.argv) == 3 else None, sys.argv[-1])
