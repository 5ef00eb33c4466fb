"""Looks at every picture of a data set once: what can be used, and what is left out and why."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F

from facerestore.core.config import Config
from facerestore.core.errors import ConfigError, ImageError, OutputError
from facerestore.data.index import Entry, Index, Place, Removed, require_some
from facerestore.imaging.color_fix import luma
from facerestore.imaging.photo import Photo
from facerestore.weights.records import read_record, write_record

_HASH_ROWS, _HASH_COLUMNS = 8, 9
_REDUCED_PX = 64  # what the difference hash is computed of
_BITS = np.array([value.bit_count() for value in range(2**16)], np.uint8)
_SAVED_EVERY = 1000  # pictures, so that an interruption costs a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks(Config):
    """What a picture must be to be used; what cannot be read, and second copies, are never used.

    Attributes:
        min_px: its shorter side, at least.
        colour: whether grey pictures are left out.
        near: pictures whose 64-bit difference hash differs in at most this many bits from that of an earlier
            one are left out as well; 2 to 6 finds pictures that were saved again or resized. None: not asked.
    """

    min_px: int = 128
    colour: bool = True
    near: int | None = None

    def __post_init__(self) -> None:
        if self.min_px < 1:
            raise ConfigError(f"min_px is {self.min_px}, at least 1 expected")
        if self.near is not None and not 0 <= self.near < 32:
            raise ConfigError(f"near is {self.near}, 0 to 31 bits of 64 expected")


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was found out about a picture."""

    width: int
    height: int
    grey: bool
    sha256: str
    look: int  # the difference hash


def scan(
    entries: Sequence[Entry],
    checks: Checks,
    *,
    what: str | Path,
    record: Path | None = None,
    removed: Iterable[Removed] = (),
) -> Index:
    """Read all pictures and keep the entries that can be used, in their order.

    Every file of an entry must be readable; size, colour and likeness are asked of its `hq`.

    Args:
        entries: what was found, with unique keys.
        checks: what a picture must be.
        what: the folder or list, for messages.
        record: a JSON file that remembers what was seen, by place, size and time of change, so that an
            unchanged picture is not read again; None for nowhere.
        removed: what was left out before.

    Raises:
        EmptyDataset: if nothing is left.
        OutputError: if the record cannot be written.
    """
    kept: list[Entry] = []
    gone = list(removed)
    earlier = _Earlier(len(entries))
    for entry, seen in zip(entries, _look_at(entries, record), strict=True):
        if isinstance(seen, str):
            gone.append(Removed(entry.key, "unreadable", seen))
            continue
        entry = replace(entry, sha256=_content(seen))
        fault = earlier.fault(entry, seen["hq"], checks)
        if fault is None:
            kept.append(entry)
        else:
            gone.append(fault)
    return require_some(Index(tuple(kept), tuple(gone)), what)


class _Earlier:
    """The entries that were kept so far, and what is wrong with the next one."""

    def __init__(self, count: int) -> None:
        self.keys: list[str] = []
        self.contents: dict[str, str] = {}
        self.looks = np.zeros(count, np.uint64)

    def fault(self, entry: Entry, seen: _Seen, checks: Checks) -> Removed | None:
        """Why the entry is left out; if it is not, it counts from now on."""
        if min(seen.width, seen.height) < checks.min_px:
            return Removed(entry.key, "too small", f"{seen.width} x {seen.height} px")
        if checks.colour and seen.grey:
            return Removed(entry.key, "grey", "has no colour")
        if entry.sha256 in self.contents:
            return Removed(entry.key, "duplicate", f"has the content of {self.contents[entry.sha256]}")
        if checks.near is not None and self.keys:
            apart = self.looks[: len(self.keys)] ^ np.uint64(seen.look)
            bits = _BITS[apart.view(np.uint16)].reshape(-1, 4).sum(axis=1)
            nearest = int(bits.argmin())
            if bits[nearest] <= checks.near:
                return Removed(entry.key, "near duplicate", f"looks like {self.keys[nearest]}")
        self.looks[len(self.keys)] = seen.look
        self.keys.append(entry.key)
        self.contents[entry.sha256] = entry.key
        return None


def _look_at(entries: Sequence[Entry], record: Path | None) -> Iterator[dict[str, _Seen] | str]:
    """What each entry's files are, by field; or what is wrong with them."""
    known = {} if record is None else read_record(record)
    new: dict[str, list[Any]] = {}

    def look(entry: Entry) -> dict[str, _Seen] | str:
        try:
            return {name: _known_or_seen(place, known, new) for name, place in entry.files.items()}
        except (ImageError, OSError) as error:
            return str(error)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        try:
            for count, answer in enumerate(pool.map(look, entries), 1):
                yield answer
                if count % _SAVED_EVERY == 0:
                    _remember(record, known, new)
        finally:  # also where it was interrupted
            pool.shutdown(cancel_futures=True)
            _remember(record, known, new)


def _known_or_seen(place: Place, known: dict[str, Any], new: dict[str, list[Any]]) -> _Seen:
    status = place.path.stat()
    name = f"{place.path.resolve()}:{place.start}"
    state = [status.st_size, status.st_mtime_ns]
    entry = known.get(name)
    if isinstance(entry, list) and len(entry) == 2 + len(fields(_Seen)) and entry[:2] == state:
        return _Seen(*entry[2:])
    photo = place.picture()
    digest = hashlib.sha256(place.content()).hexdigest()
    seen = _Seen(photo.width, photo.height, photo.is_grey, digest, difference_hash(photo))
    new[name] = [*state, *asdict(seen).values()]
    return seen


def _remember(record: Path | None, known: dict[str, Any], new: dict[str, list[Any]]) -> None:
    if record is None or not new:
        return
    known.update(new.copy())
    try:
        write_record(record, known)
    except OSError as error:
        raise OutputError(f"{record}: cannot be written ({error.strerror or error})") from error


def difference_hash(photo: Photo) -> int:
    """64 bits that tell whether brightness rises from one column to the next, row by row.

    Pictures that look alike differ in few of them, whatever their size and encoding.

    Reference:
        Krawetz, 2013, "Kind of like that" (hackerfactor.com), dHash: 9 x 8 grey values.
    """
    small, _ = photo.reduced_srgb(_REDUCED_PX)
    grey = F.interpolate(luma(small)[:, :1], size=(_HASH_ROWS, _HASH_COLUMNS), mode="area")[0, 0]
    bits = (grey[:, 1:] > grey[:, :-1]).flatten().tolist()
    return int("".join("1" if bit else "0" for bit in bits), 2)


def _content(seen: dict[str, _Seen]) -> str:
    """The hash of an entry: that of its one file, or of the names and hashes of several."""
    if len(seen) == 1:
        return next(iter(seen.values())).sha256
    lines = "".join(f"{name} {facts.sha256}\n" for name, facts in sorted(seen.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
