"""Stand-ins for what training frameworks and numpy leave in a pickled file beside its tensors.

A pickle names classes and functions; opening it with `weights_only=True` refuses all but torch's own, and
Lightning also writes hyper-parameters, settings and callbacks. Those names, and no others, are answered with
the inert classes of this module: nothing of the frameworks is imported, nothing of the file is executed, and
what the stand-ins are given is thrown away. Only single numbers of numpy are kept, as plain ones.
"""

import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

_FAMILIES = frozenset(
    {"argparse", "omegaconf", "pytorch_lightning", "lightning", "lightning_fabric", "lightning_utilities"}
)
_NAMES = frozenset(
    {"typing.Any", "pathlib.PosixPath", "pathlib.WindowsPath"}
    | {f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "set", "str", "tuple")}
)
# Protocol 2, which torch writes, calls them as Python 2 did.
_OLD_NAMES = {"__builtin__.long": "builtins.int", "__builtin__.unicode": "builtins.str"}
_SCALARS = frozenset(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core"))
_FORMATS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u1": "B", "b1": "?"}
_LEGACY_PICKLES = 5  # magic number, protocol, system, the object, names of the storages


class Leftover:
    """Takes any arguments and any state, and keeps none."""

    def __new__(cls, *arguments: Any) -> "Leftover":
        """Ignore the arguments."""
        return super().__new__(cls)

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""


class LeftoverDict:
    """Makes a plain dictionary, whatever it is called with."""

    def __new__(cls, *arguments: Any) -> dict[Any, Any]:  # pyright: ignore[reportInconsistentConstructor]
        """An empty dictionary."""
        return {}


class NumpyType:
    """Keeps the code of a dtype, such as `f8`, and its byte order."""

    def __init__(self, code: object = "", *arguments: Any) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        """Take the byte order from what numpy keeps."""
        if isinstance(state, tuple) and state[1:2] == (">",):
            self.order = ">"


def numpy_number(kind: object = None, content: object = None) -> int | float | bool | Leftover:
    """The number that numpy keeps as these bytes; anything else is left over."""
    if isinstance(kind, NumpyType) and kind.code in _FORMATS and isinstance(content, bytes):
        try:
            return struct.unpack(kind.order + _FORMATS[kind.code], content)[0]
        except struct.error:  # of another length
            return Leftover()
    return Leftover()


def stand_ins(path: Path) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What to answer for the framework names in a pickled file, for `torch.serialization.safe_globals`.

    The file is taken apart without being executed. Names that belong to no framework are not answered, so
    that torch refuses them.
    """
    answers: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = []
    for name in sorted(_names(path)):
        # Dictionaries get items while they are unpickled, which torch allows for plain ones alone.
        if name == "collections.defaultdict" or name.endswith(".AttributeDict"):
            answers.append((LeftoverDict, name))
        elif name == "numpy.dtype":
            answers.append((NumpyType, name))
        elif name in _SCALARS:
            answers.append((numpy_number, name))
        elif name in _NAMES or name.partition(".")[0] in _FAMILIES:
            answers.append((Leftover, name))
    return answers


def _names(path: Path) -> set[str]:
    try:
        if not zipfile.is_zipfile(path):
            with path.open("rb") as stream:
                return set().union(*(_names_in(stream) for _ in range(_LEGACY_PICKLES)))
        with zipfile.ZipFile(path) as archive:
            inner = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            return set().union(*(_names_in(archive.open(name)) for name in inner))  # pyright: ignore[reportArgumentType]
    except (ValueError, OSError, pickle.UnpicklingError, zipfile.BadZipFile):
        return set()  # a damaged file, or no pickle: torch says so when it opens it


def _names_in(stream: BinaryIO) -> set[str]:
    """The globals that one pickle names; protocol 2, which torch writes, has them as one operation."""
    names = {
        str(argument).replace(" ", ".")
        for operation, argument, _ in pickletools.genops(stream)
        if operation.name == "GLOBAL"
    }
    return {_OLD_NAMES.get(name, name.replace("__builtin__.", "builtins.")) for name in names}
