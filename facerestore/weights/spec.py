"""What is known about each weight: what ships (`manifest.toml`), and what is the user's (`remote.toml`)."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from facerestore.core.errors import WeightsNotFound

PEFT_CONFIG = "adapter_config.json"
"""The settings of an adapter in the form of PEFT, beside its tensors."""

Form = Literal["diffusers", "transformers", "tokenizer"]
"""What a folder of a pipeline holds: a network as diffusers or as transformers saves it, or a tokenizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightSpec:
    """One entry of a manifest.

    Attributes:
        name: what recipes and `--weights NAME=PATH` call it.
        file: file name, without a folder; for a remote one the path below a weights folder, which is itself a
            folder where it has no ending.
        bytes: size; of a remote one about, from its number of parameters.
        sha256: its hash, 64 hex digits; empty where none can be known: then keys and shapes are checked, and
            the hash of the file in use is reported.
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
        published: what its authors call the file or folder, where several lie side by side in one folder.
        short: another word for it than its name's last part, for `--weights SHORT=PATH`.
        form: what a folder holds.
        made_of: weights that `facerestore weights prepare` makes this one of, on the user's machine.
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
    published: str = ""
    short: str = ""
    form: Form = "diffusers"
    made_of: tuple[str, ...] = ()

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of a pipeline, and no file."""
        return "." not in self.file

    @property
    def settings(self) -> str:
        """The file that a folder of its form always has."""
        return "tokenizer_config.json" if self.form == "tokenizer" else "config.json"

    @property
    def is_adapter(self) -> bool:
        """Whether it is an adapter, which may be a folder in the form of PEFT too."""
        return self.net.startswith("LoRA")

    @property
    def places(self) -> tuple[str, ...]:
        """Where it may lie below a weights folder."""
        return (self.file, self.file.rpartition(".")[0]) if self.is_adapter else (self.file,)

    def is_at(self, path: Path) -> bool:
        """Whether a file or folder is there that can be this weight."""
        if self.is_folder:
            return (path / self.settings).is_file()
        return path.is_file() or (self.is_adapter and (path / PEFT_CONFIG).is_file())

    def require_at(self, path: Path, given_for: str) -> None:
        """Refuse a path of the user's own where the weight is not.

        Raises:
            WeightsNotFound: names the path, what it was given for, and what should be there.
        """
        if not self.is_at(path):
            kind = "no file nor a PEFT folder" if self.is_adapter else "no file"
            kind = f"no folder with a {self.settings}" if self.is_folder else kind
            raise WeightsNotFound(f"{path}, given for {given_for!r}, is {kind}; correct the path")


def manifest() -> tuple[WeightSpec, ...]:
    """Every weight that ships, in the order of `manifest.toml`."""
    return _entries("manifest.toml")


def remote() -> tuple[WeightSpec, ...]:
    """Every weight that is the user's to fetch, in the order of `remote.toml`."""
    return _entries("remote.toml")


@cache
def _entries(file: str) -> tuple[WeightSpec, ...]:
    text = files("facerestore.weights").joinpath(file).read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = tomllib.loads(text)["weight"]
    return tuple(WeightSpec(**{key: _frozen(value) for key, value in entry.items()}) for entry in entries)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
