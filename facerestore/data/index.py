"""What a data set consists of: entries that say where pictures lie, and what was left out and why."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from facerestore.core.errors import ConfigError, EmptyDataset, ImageError, ImageUnreadable
from facerestore.imaging.photo import Photo
from facerestore.imaging.read import read_image
from facerestore.imaging.whole import whole_file


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of a picture lie: a file, or a part of one, such as a member of a tar shard.

    Attributes:
        path: the file.
        start: the first byte of the part.
        size: of the part, in bytes; None takes the whole file.
        member: name of the part, for messages.
    """

    path: Path
    start: int = 0
    size: int | None = None
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.member}" if self.member else str(self.path)

    def content(self) -> bytes:
        """The bytes that lie there.

        Raises:
            ImageUnreadable: if they cannot be read, or the file is shorter than it was.
        """
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.start)
                content = stream.read(-1 if self.size is None else self.size)
        except OSError as error:
            raise ImageUnreadable(f"{self}: cannot be read ({error.strerror or error})") from error
        if self.size is not None and len(content) != self.size:
            raise ImageUnreadable(
                f"{self}: {self.size} bytes expected, {len(content)} are there; replace the file"
            )
        return content

    def picture(self) -> Photo:
        """The picture, upright, in its own colours.

        Raises:
            ImageError: if there is none that can be read; the message names it.
        """
        if self.size is None:
            return read_image(self.path)
        try:
            return read_image(self.content())
        except ImageError as error:
            raise type(error)(str(error).replace("<bytes>", str(self), 1)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One sample of a data set, not read yet.

    Attributes:
        key: its name, a relative path with `/`; no two entries share one.
        files: where its pictures lie, by field: `hq`, perhaps `lq`, `original`.
        sha256: of the content of all its files, 64 hex digits.
        facts: what a list says of it: `licence`, `source`, `identity`, `author`.
    """

    key: str
    files: Mapping[str, Place]
    sha256: str = ""
    facts: Mapping[str, str] = field(default_factory=dict[str, str])


class Removed(NamedTuple):
    """What was left out.

    Attributes:
        key: of the entry, or what it would have been.
        reason: a word or two by which they are counted: `unreadable`, `too small`, `grey`, `duplicate`.
        detail: for a person.
    """

    key: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Index:
    """The usable entries of a data set, in order, and what was left out.

    Attributes:
        entries: sorted by key, unless a list gave them an order.
        removed: in the order in which they were met.
    """

    entries: tuple[Entry, ...]
    removed: tuple[Removed, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)

    def without(self, removed: Iterable[Removed]) -> "Index":
        """The rest, once these are left out; keys that are not in the index are only noted."""
        more = tuple(removed)
        gone = {item.key for item in more}
        return Index(tuple(entry for entry in self.entries if entry.key not in gone), (*self.removed, *more))

    def counts(self) -> dict[str, int]:
        """How many were left out, by reason, the commonest first."""
        return dict(Counter(item.reason for item in self.removed).most_common())

    def summary(self) -> str:
        """One line: how many are used, and how many of each reason are not, with the first three by name."""
        total = len(self.entries) + len(self.removed)
        parts: list[str] = []
        for reason, count in self.counts().items():
            keys = [item.key for item in self.removed if item.reason == reason]
            parts.append(f"{count} {reason} ({', '.join(keys[:3])}{', ...' if count > 3 else ''})")
        return f"{len(self.entries)} of {total} are used" + (f"; {', '.join(parts)}" if parts else "")

    def write_report(self, path: str | Path) -> Path:
        """Write what was left out, one row each, as CSV or JSON by the ending of the name.

        Raises:
            ConfigError: if the ending is another one.
            OutputError: if the file cannot be written.
        """
        target = Path(path)
        if target.suffix.lower() == ".json":
            rows = [item._asdict() for item in self.removed]
            content = json.dumps({"kept": len(self), "counts": self.counts(), "removed": rows}, indent=1)
        elif target.suffix.lower() == ".csv":
            text = io.StringIO(newline="")
            csv.writer(text).writerows([Removed._fields, *self.removed])
            content = text.getvalue()
        else:
            raise ConfigError(f"{target}: a report is written as .csv or .json")
        with whole_file(target) as stream:
            stream.write(content.encode())
        return target


def require_some(index: Index, what: str | Path) -> Index:
    """The index, if it has an entry.

    Raises:
        EmptyDataset: if not; the message says what was left out.
    """
    if not index.entries:
        skipped = index.summary() if index.removed else "there is none at all"
        raise EmptyDataset(f"{what}: no usable picture: {skipped}")
    return index


def select(index: Index, where: Mapping[str, str | Collection[str]]) -> Index:
    """Keep the entries whose facts fit, and name the others.

    Args:
        index: the entries.
        where: a fact and what it may be, one pattern or several: `{"licence": ("CC0*", "MIT*")}`; `*` and
            `?` stand for anything and for one sign, and case counts.

    Raises:
        ConfigError: if no entry has such a fact.
        EmptyDataset: if nothing is left.
    """
    removed: dict[str, Removed] = {}
    for name, wanted in where.items():
        patterns = (wanted,) if isinstance(wanted, str) else tuple(wanted)
        if not any(name in entry.facts for entry in index.entries):
            known = sorted({fact for entry in index.entries for fact in entry.facts})
            raise ConfigError(f"no entry has the fact {name!r}; there are {', '.join(known) or 'none'}")
        for entry in index.entries:
            value = entry.facts.get(name, "")
            if not any(fnmatchcase(value, pattern) for pattern in patterns):
                removed.setdefault(entry.key, Removed(entry.key, f"other {name}", value))
    return require_some(index.without(removed.values()), "what was selected")


def balanced(index: Index, by: str) -> tuple[float, ...]:
    """Weights for `Order` that give every value of a fact the same share of an epoch.

    Args:
        index: the entries.
        by: name of the fact, such as `source`.

    Raises:
        ConfigError: if an entry lacks it.
    """
    lacking = [entry.key for entry in index.entries if by not in entry.facts]
    if lacking:
        raise ConfigError(f"{len(lacking)} entries have no fact {by!r}, the first is {lacking[0]}")
    sizes = Counter(entry.facts[by] for entry in index.entries)
    return tuple(1 / sizes[entry.facts[by]] for entry in index.entries)


def held_back(index: Index, share: float, *, by: str = "identity", seed: int = 0) -> tuple[Index, Index]:
    """Split off entries to judge by; all entries of one person go to the same side.

    A person's side follows from their name and the seed alone, so that it stays when pictures are added.

    Args:
        index: the entries.
        share: of the people that are held back, about, between 0 and 1.
        by: the fact that names the person; an entry without it counts as a person of its own.
        seed: another one holds back others.

    Returns:
        The entries to train on, and those held back.

    Raises:
        ConfigError: if a side would be empty.
    """

    def is_held(entry: Entry) -> bool:
        name = entry.facts.get(by) or entry.key
        digest = hashlib.sha256(f"{seed}/held back/{name}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < share * 2**64

    held = tuple(entry for entry in index.entries if is_held(entry))
    trained = tuple(entry for entry in index.entries if not is_held(entry))
    if not held or not trained:
        raise ConfigError(
            f"a share of {share} holds back {len(held)} of {len(index)} entries; take another share or seed"
        )
    return replace(index, entries=trained), Index(held)
