"""Generated pictures and colour profiles."""

import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms


@pytest.fixture(scope="session")
def pattern() -> Callable[..., NDArray[Any]]:
    """Makes a smooth, colourful picture without symmetry: (height, width, channels, dtype) -> (H,W,C)."""

    def make(height: int, width: int, channels: int = 3, dtype: Any = np.uint8) -> NDArray[Any]:
        y, x = np.mgrid[0:height, 0:width] / max(height, width)
        waves = [0.5 + 0.45 * np.sin(3 * x * (c + 1) + 2 * y * (4 - c) + c) for c in range(channels)]
        return np.rint(np.stack(waves, -1) * np.iinfo(dtype).max).astype(dtype)

    return make


def _s15(*values: float) -> bytes:
    return b"".join(struct.pack(">l", round(value * 65536)) for value in values)


def _profile(kind: bytes, space: bytes, pcs: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC version 2 profile of these tags."""
    text = b"made for a test\0"
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">L", len(text)) + text + bytes(78),
        b"cprt": b"text" + bytes(4) + text,
        b"wtpt": b"XYZ " + bytes(4) + _s15(0.9642, 1, 0.8249),
    } | tags
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">LL", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">LLL4s4s4s", start + len(body), 0, 0x02400000, kind, space, pcs)
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _s15(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">L", len(tags)) + table + body


def _gamma(value: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">LH", 1, round(value * 256)) + bytes(2)


@pytest.fixture(scope="session")
def wide_gamut() -> bytes:
    """An RGB profile with the primaries of Adobe RGB (1998), adapted to D50."""
    columns = {b"r": (0.60974, 0.31111, 0.01947), b"g": (0.20528, 0.62567, 0.06087)}
    columns[b"b"] = (0.14919, 0.06322, 0.74457)
    tags = {name + b"XYZ": b"XYZ " + bytes(4) + _s15(*xyz) for name, xyz in columns.items()}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags | {name + b"TRC": _gamma(2.2) for name in columns})


@pytest.fixture(scope="session")
def dark_grey() -> bytes:
    """A grey profile with gamma 1.4, far from that of sRGB."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _gamma(1.4)})


@pytest.fixture(scope="session")
def inks() -> bytes:
    """A CMYK profile of tables, both ways: plain inks; on the way back with as much black as goes."""
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    levels = np.linspace(0, 255, 9)
    cmyk = np.stack(np.meshgrid(*[levels] * 4, indexing="ij"), -1).reshape(1, -1, 4) / 255
    rgb = np.rint(255 * (1 - cmyk[..., :3]) * (1 - cmyk[..., 3:])).astype(np.uint8)
    to_lab = ImageCms.buildTransform(srgb, lab, "RGB", "LAB")
    forward = np.asarray(ImageCms.applyTransform(Image.fromarray(rgb), to_lab)).astype(int)
    forward[..., 1:] ^= 128  # Pillow holds a and b signed
    nodes = np.stack(np.meshgrid(*[np.linspace(0, 255, 17)] * 3, indexing="ij"), -1).reshape(1, -1, 3)
    coded = np.rint(nodes).astype(np.uint8)
    coded[..., 1:] ^= 128
    from_lab = ImageCms.buildTransform(lab, srgb, "LAB", "RGB")
    height = Image.frombytes("LAB", (coded.shape[1], 1), coded.tobytes())
    back = np.asarray(ImageCms.applyTransform(height, from_lab)) / 255
    black = 1 - back.max(-1, keepdims=True)
    mixed = np.concatenate([1 - back / np.maximum(1 - black, 1e-6), black], -1)

    def table(inputs: int, outputs: int, grid: int, values: NDArray[Any]) -> bytes:
        ramp = bytes(range(256))
        head = b"mft1" + bytes(4) + bytes([inputs, outputs, grid, 0]) + _s15(1, 0, 0, 0, 1, 0, 0, 0, 1)
        return head + ramp * inputs + np.rint(values).astype(np.uint8).tobytes() + ramp * outputs

    a2b, b2a = table(4, 3, 9, forward), table(3, 4, 17, mixed * 255)
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": a2b, b"A2B1": a2b, b"B2A0": b2a, b"B2A1": b2a})


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Encodes a Pillow image: (image, format, **save options) -> bytes of a file."""

    def make(image: Image.Image, format: str, **options: Any) -> bytes:
        stream = io.BytesIO()
        image.save(stream, format, **options)
        return stream.getvalue()

    return make
