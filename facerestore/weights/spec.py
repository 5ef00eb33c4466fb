"""What is known about each weight: what ships (`manifest.toml`), and what is the user's (`remote.toml`)."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSpec:
    """One entry of a manifest.

    Attributes:
        name: what recipes and `--weights NAME=PATH` call it.
        file: file name, without a folder; for a remote one the path below a weights folder, which is a
        folder of
            diffusers (`config.json` and `diffusion_pytorch_model.safetensors`) where it has no ending.
        bytes: size; of a remote one about, from its number of parameters.
        sha256: its hash, 64 hex digits; empty where none can be known: then keys and shapes are checked, and
        the
            hash of the file in use is reported.
        licence: SPDX identifier, or the words of its source; the text of what ships is
            `weights/LICENSES/<name>.txt`.
        source: package and version that it was converted from.
        citation: the work to cite.
        net: class that it belongs to, as `module.Class` below `facerestore.nets`.
        note: what it is and what it was trained on, as far as known.
        hub: where a hub has it, in order of preference: `OWNER/REPOSITORY:PATH`, where the path of a folder
            ends in a slash. None where no hub has it.
        take: of a published checkpoint, only what lies below this dotted name.
        parameters: of the network, which with its dtype say what memory it takes; 0 for what is merged into
            another or is no network.
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
    hub: tuple[str, ...] = ()
    take: str = ""
    parameters: int = 0

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder in the form of diffusers."""
        return "." not in self.file


def manifest() -> tuple[WeightSpec, ...]:
    """Every weight that ships, in the order of `manifest.toml`."""
    return _entries("manifest.toml")


def remote() -> tuple[WeightSpec, ...]:
    """Every weight that is the user's to fetch, in the order of `remote.toml`."""
    return _entries("remote.toml")


@cache
def _entries(file: str) -> tuple[WeightSpec, ...]:
    text = files("facerestore.weights").joinpath(file).read_text(encoding="utf-8")
    entries = tomllib.loads(text)["weight"]
    return tuple(WeightSpec(**entry | {"hub": tuple(entry.get("hub", ()))}) for entry in entries)
