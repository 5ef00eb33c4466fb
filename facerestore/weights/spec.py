"""What is known about each weight file: `manifest.toml` as frozen data."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSpec:
    """One entry of the manifest.

    Attributes:
        name: what recipes and `--weights NAME=PATH` call it.
        file: file name, without a folder.
        bytes: size of the file.
        sha256: its hash, 64 hex digits.
        licence: SPDX identifier; the text is `weights/LICENSES/<name>.txt`.
        source: package and version that it was converted from.
        citation: the work to cite.
        net: class that it belongs to, as `module.Class` below `facerestore.nets`.
        note: what it is and what it was trained on, as far as known.
    """

    name: str
    file: str
    bytes: int
    sha256: str
    licence: str
    source: str
    citation: str
    net: str
    note: str


@cache
def manifest() -> tuple[WeightSpec, ...]:
    """Every weight of `manifest.toml`, in its order."""
    text = files("facerestore.weights").joinpath("manifest.toml").read_text(encoding="utf-8")
    return tuple(WeightSpec(**entry) for entry in tomllib.loads(text)["weight"])
