"""Finds weight files, and says whether they are the ones that the manifest describes.

Looked for, in this order: an explicit path, the folders of `$FACERESTORE_WEIGHTS`, the package's own data,
the user's cache. Never in the working directory. Importing this module loads neither torch nor numpy.
"""

import difflib
import logging
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from facerestore.core.errors import ChecksumMismatch, ConfigError, WeightsError, WeightsNotFound
from facerestore.weights.hashes import sha256_of
from facerestore.weights.spec import WeightSpec, manifest, remote

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

VARIABLE = "FACERESTORE_WEIGHTS"
OWN = "own/"
"""Names that begin so are of adapters and networks of the user's own, given by path alone."""
_HERE = Path(__file__).resolve().parent


class WeightStore:
    """The weights that can be reached from here.

    Args:
        paths: files of the user's own, by weight name. They may differ from the manifest's file: then their
            keys and shapes are checked by `load_into`, and `sha256` reports their own hash. A name that
            begins with `own/` is in no manifest: an adapter or a network that nobody but the user knows.

    Raises:
        ConfigError: if a name is in no manifest.
    """

    def __init__(self, *, paths: Mapping[str, str | Path] | None = None) -> None:
        self._paths = {name: Path(path).expanduser() for name, path in (paths or {}).items()}
        self._hashes: dict[str, str] = {}
        for name in self._paths:
            self.spec(name)

    def specs(self) -> tuple[WeightSpec, ...]:
        """Everything that ships."""
        return manifest()

    def spec(self, name: str) -> WeightSpec:
        """The manifest's entry for a weight.

        Raises:
            ConfigError: if there is none.
        """
        if name.startswith(OWN) and name in self._paths:
            return _of_the_user(name, self._paths[name])
        known = {spec.name: spec for spec in (*manifest(), *remote())}
        if name in known:
            return known[name]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        raise ConfigError(f"there is no weight named {name!r}; {hint}")

    def folders(self) -> tuple[Path, ...]:
        """Where files are looked for, in this order, after the explicit paths."""
        return (*_named_folders(), *_own_folders(), cache_folder())

    def find(self, name: str) -> Path:
        """The file or folder that holds `name`; it is there, but not yet verified.

        A folder is one of diffusers, or for an adapter one of PEFT.

        Raises:
            ConfigError: if the manifest has no such name.
            WeightsNotFound: if the file is in none of the places.
        """
        spec = self.spec(name)
        if name in self._paths:
            spec.require_at(self._paths[name], name)
            return self._paths[name]
        folders = self.folders()
        for path in (folder / place for folder in folders for place in spec.places):
            if spec.is_at(path):
                return path
        places = ", ".join(map(str, folders))
        remedy = "Install facerestore again, set" if spec in manifest() else "Set"
        if spec.hub:
            remedy = f"Run `facerestore weights fetch {name}`, set"
        raise WeightsNotFound(
            f"{_described(spec)} is in none of {places}. {remedy} {VARIABLE} to the folder that has it, or "
            f"give its path: --weights {name}=PATH"
        )

    def require(self, names: Iterable[str]) -> None:
        """Check that every weight is there before any is loaded.

        Raises:
            WeightsNotFound: names every missing one, with its size, its licence and where it comes from.
        """
        missing: list[WeightSpec] = []
        for name in names:
            try:
                self.find(name)
            except WeightsNotFound:
                if name in self._paths:
                    raise
                missing.append(self.spec(name))
        if missing:
            lines = "".join(f"\n  {spec.name}: {_described(spec)}" for spec in missing)
            on_hub = " ".join(spec.name for spec in missing if spec.hub)
            command = f"`facerestore weights fetch {on_hub}` brings what a hub has. " if on_hub else ""
            raise WeightsNotFound(
                f"{len(missing)} weights are missing:{lines}\n{command}What you bring yourself goes in as "
                "its authors publish it: by its path, --weights NAME=PATH, or under its name below a folder "
                f"that {VARIABLE} names"
            )

    def verify(self, name: str) -> Path:
        """Read the file, and compare its size and sha256 with the manifest; one of the user's is only hashed.

        So is a weight whose hash cannot be known here, and a folder, whose hash is that of its files' names
        and hashes.

        Returns:
            The file or folder.

        Raises:
            ChecksumMismatch: if they differ.
            WeightsNotFound: if there is no file.
        """
        return self._verified(name, anew=True)

    def sha256(self, name: str) -> str:
        """Hash of the file that is in use for `name`, verified (see `verify` for what that raises).

        A big file that has the size and time of change that it had when it was last read is not read again.
        """
        if name not in self._hashes:
            self._verified(name, anew=False)
        return self._hashes[name]

    def readable(self, name: str) -> Path:
        """What `name` is read from: its verified file or folder, or the copy that is made of a pickle.

        What is pickled is converted once, into `converted` below the user's cache, and mapped from then on;
        where that cannot be written, the pickle itself is returned. Nothing of it is executed.

        Raises:
            ChecksumMismatch: if the file is not the one that the manifest describes.
            WeightsError: if a file of the user's own cannot be read, or is refused.
            WeightsNotFound: if there is no file.
        """
        from facerestore.weights.copies import is_pickled, mapped_copy

        spec, path = self.spec(name), self.find(name)
        if not spec.is_folder:
            self.sha256(name)
        if not is_pickled(path):
            return path
        copies = cache_folder() / "converted"
        return mapped_copy(path, take=spec.take, sha256=self.sha256(name), folder=copies) or path

    def load(self, name: str) -> "dict[str, Tensor]":
        """The tensors of a verified file, on the CPU; quantised ones as float32, halves stay halves.

        Raises:
            ChecksumMismatch: if the file is not the one that the manifest describes.
            WeightsNotFound: if there is no file.
            WeightsError: if a file of the user's own cannot be read.
        """
        from facerestore.weights.convert import read_part

        return read_part(self.readable(name), self.spec(name).take).tensors

    def _verified(self, name: str, *, anew: bool) -> Path:
        spec, path = self.spec(name), self.find(name)
        own = name in self._paths or not spec.sha256 or path.is_dir()
        size = path.stat().st_size
        if not own and size != spec.bytes:
            raise ChecksumMismatch(
                f"{path} has {size:,} bytes, and {name!r} has {spec.bytes:,}: it is incomplete or another "
                f"file. Replace it, or give your own with --weights {name}=PATH"
            )
        try:
            digest = sha256_of(path, record=cache_folder() / "hashes.json", anew=anew)
        except OSError as error:
            raise WeightsError(f"{path} cannot be read: {error}") from error
        if not own and digest != spec.sha256:
            raise ChecksumMismatch(
                f"{path} is damaged or another file: its sha256 is {digest[:16]}..., and {name!r} has "
                f"{spec.sha256[:16]}.... Replace it, or give your own with --weights {name}=PATH"
            )
        self._hashes[name] = digest
        return path


def _of_the_user(name: str, path: Path) -> WeightSpec:
    return WeightSpec(
        name=name,
        file=f"{name}.safetensors",
        bytes=0,
        sha256="",
        licence="the user's own",
        source=str(path),
        citation="none",
        net="LoRA or network that was trained",
        note="An adapter or a network of the user's own.",
    )


def _described(spec: WeightSpec) -> str:
    size = f"{spec.bytes / 1e9:.1f} GB" if spec.bytes > 1e9 else f"{spec.bytes / 1e6:.1f} MB"
    about = "" if spec.sha256 else "about "
    return f"{spec.file} ({about}{size}, licence {spec.licence}, from {spec.source})"


def cache_folder() -> Path:
    """The user's folder for weights: `$XDG_CACHE_HOME/facerestore/weights`, by default below `~/.cache`."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "facerestore" / "weights"


def _named_folders() -> list[Path]:
    """The folders of the environment variable, without relative ones: they hang on the working directory."""
    folders: list[Path] = []
    for text in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        folder = Path(text).expanduser()
        if folder.is_absolute():
            folders.append(folder)
        else:
            logger.warning("%s: %r is relative to the working directory and not searched", VARIABLE, text)
    return folders


def _own_folders() -> list[Path]:
    """The data of an installed wheel, or `weights/` of the source checkout that this file belongs to."""
    folders = [_HERE / "shipped"]
    project = _HERE.parents[1] / "pyproject.toml"
    if project.is_file():
        table = tomllib.loads(project.read_text(encoding="utf-8"))
        if table.get("project", {}).get("name") == "facerestore":
            folders.append(project.parent / "weights")
    return folders
