"""Which restored picture belongs to which degraded and which sharp one, and what does not fit.

Pictures belong together by their path below their folders, without its ending, and never by their name
alone: two subsets may share names. Nothing is left out silently; what cannot be measured is a `Problem`.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from facerestore.core.errors import ConfigError
from facerestore.evaluation.protocol import Protocol
from facerestore.imaging.tree import pictures_below

Side = Literal["restored", "lq", "hq"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about a picture that the numbers do not show.

    Attributes:
        kind: `missing`, `extra`, `duplicate`, `unreadable`, `wrong size`, or `not measured`.
        key: the picture's path below its folder, without its ending.
        message: what it is, for a person.
    """

    kind: Literal["missing", "extra", "duplicate", "unreadable", "wrong size", "not measured"]
    key: str
    message: str


@dataclass(frozen=True, slots=True)
class Case:
    """A restored picture and what it is compared with.

    Attributes:
        key: its path below the restored folder, without ending: `LFW-Test/Aaron_Eckhart`.
        subset: of the protocol; the empty name where it has none.
        restored: its file.
        lq: the degraded picture, if there is a folder of them.
        hq: the sharp picture, likewise.
    """

    key: str
    subset: str
    restored: Path
    lq: Path | None = None
    hq: Path | None = None

    def path(self, side: Side) -> Path | None:
        """The file of a side."""
        return {"restored": self.restored, "lq": self.lq, "hq": self.hq}[side]


def match(
    protocol: Protocol, restored: Path, lq: Path | None = None, hq: Path | None = None
) -> tuple[list[Case], list[Problem]]:
    """Bring pictures together.

    Args:
        protocol: its subsets are the folders that count; without any, all pictures do.
        restored: folder of the pictures that are judged, searched with what lies below it.
        lq: folder of the degraded ones, with the same tree.
        hq: folder of the sharp ones, likewise.

    Returns:
        What can be measured, in the order of the subsets and their names; and what is wrong: pictures that
        are missing, that belong to nothing, and several that claim one place, of which none is measured.

    Raises:
        ConfigError: if a folder is not there, or nothing restored is in it.
    """
    problems: list[Problem] = []
    sides: dict[str, dict[str, Path]] = {}
    for side, folder in (("restored", restored), ("lq", lq), ("hq", hq)):
        if folder is not None:
            sides[side] = _pictures(protocol, side, folder, problems)
    if not sides["restored"]:
        raise ConfigError(f"{restored}: there is no picture in it")
    expected = {key for side, found in sides.items() if side != "restored" for key in found}
    refused = {problem.key for problem in problems}
    cases: list[Case] = []
    for key in sorted({*sides["restored"], *expected} - refused):
        subset = _subset(protocol, key)
        absent = [side for side, found in sides.items() if key not in found]
        if subset is None:
            known = ", ".join(each.name for each in protocol.subsets)
            problems.append(Problem("extra", key, f"lies in no subset of {protocol.name}: {known}"))
        elif "restored" in absent:
            problems.append(Problem("missing", key, "was not restored"))
        elif absent:
            problems.append(Problem("extra", key, f"has no picture among {' and '.join(absent)}"))
        else:
            files = {side: found[key] for side, found in sides.items()}
            cases.append(Case(key, subset, files["restored"], files.get("lq"), files.get("hq")))
    problems += _counted(protocol, cases)
    order = {subset.name: number for number, subset in enumerate(protocol.subsets)}
    return sorted(cases, key=lambda case: (order.get(case.subset, 0), case.key)), problems


def _pictures(protocol: Protocol, side: str, folder: Path, problems: list[Problem]) -> dict[str, Path]:
    """Path of each picture below a folder by its key; several of one key are a problem, and none stays."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder; it is to hold the {side} pictures")
    found: dict[str, list[Path]] = {}
    for path, place in pictures_below(folder):
        subset = protocol.subset_of(place.parts[0])
        if subset is not None:  # `WIDER-Test` of one folder is `Wider-Test` of the other
            place = PurePosixPath(subset, *place.parts[1:])
        found.setdefault(_key(place), []).append(path)
    for key, paths in found.items():
        if len(paths) > 1:
            names = ", ".join(path.name for path in paths)
            problems.append(Problem("duplicate", key, f"{side}: {names} claim one place; keep one"))
    return {key: paths[0] for key, paths in found.items() if len(paths) == 1}


def _key(place: PurePosixPath) -> str:
    return str(place.with_suffix("")) if place.suffix else str(place)


def _subset(protocol: Protocol, key: str) -> str | None:
    if not protocol.subsets:
        return ""
    folder = PurePosixPath(key).parts[0] if "/" in key else ""
    return protocol.subset_of(folder)


def _counted(protocol: Protocol, cases: Sequence[Case]) -> list[Problem]:
    """Subsets that have not as many pictures as the protocol says."""
    problems: list[Problem] = []
    for subset in protocol.subsets:
        count = sum(case.subset == subset.name for case in cases)
        if subset.count and count != subset.count:
            kind = "missing" if count < subset.count else "extra"
            problems.append(
                Problem(kind, subset.name, f"{count} pictures can be measured, {subset.count} belong to it")
            )
    return problems


def attributes_of(path: Path, keys: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """What a table says of pictures, by their keys.

    It is a CSV with a column `filename`, which holds a path below the folder, or a bare name where only one
    picture has it; every other column is an attribute.

    Raises:
        ConfigError: if it cannot be read, or names no picture or several.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as CSV ({error})") from error
    if not rows or "filename" not in rows[0]:
        raise ConfigError(f"{path}: a column `filename` and one a attribute were expected")
    by_name: dict[str, list[str]] = {}
    for key in keys:
        for name in {key, PurePosixPath(key).name}:
            by_name.setdefault(name, []).append(key)
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        name = row.pop("filename")
        places = by_name.get(name) or by_name.get(_key(PurePosixPath(name))) or []
        if len(places) > 1:
            raise ConfigError(f"{path}: {name} is the name of {' and '.join(places)}; write the path")
        if places:
            found[places[0]] = row
    return found
