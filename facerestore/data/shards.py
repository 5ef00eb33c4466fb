"""WebDataset shards: tar files whose members of one name, up to the first dot, are one sample.

The members are found once and then read where they lie, so that the order is as free, as exact and as easy to
resume as that of a folder.
"""

import re
import tarfile
from collections.abc import Sequence
from glob import glob
from pathlib import Path, PurePosixPath

from facerestore.core.errors import DataError
from facerestore.data.index import Entry, Index, Place, Removed
from facerestore.data.scan import Checks, scan
from facerestore.imaging.tree import PICTURE_ENDINGS

_FIELDS = frozenset({"hq", "lq", "original"})
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def index_shards(
    shards: str | Path | Sequence[str | Path],
    checks: Checks | None = None,
    *,
    record: str | Path | None = None,
) -> Index:
    """The samples of tar shards, in the order of the shards and of their members.

    `0001.jpg` or `0001.hq.png` is the target of the sample `0001`, `0001.lq.png` its degraded picture; other
    members (`0001.json`, `0001.txt`) are left alone.

    Args:
        shards: a tar file, a folder of them, several, or a pattern: `faces-{000..011}.tar`, `faces-*.tar`.
        checks: what an `hq` must be.
        record: see `index_folder`.

    Raises:
        DataError: if a shard is missing, compressed or damaged.
        EmptyDataset: if no picture in them can be used.
        OutputError: if the record cannot be written.
    """
    paths = _shards(shards)
    entries: list[Entry] = []
    removed: list[Removed] = []
    seen: set[str] = set()
    for path in paths:
        for key, files in _samples(path).items():
            if "hq" not in files:
                removed.append(Removed(key, "no hq", f"in {path}"))
            elif key in seen:
                removed.append(Removed(key, "named twice", f"again in {path}"))
            else:
                entries.append(Entry(key=key, files=files))
                seen.add(key)
    return scan(
        entries,
        checks or Checks(),
        what=", ".join(map(str, paths[:3])),
        record=None if record is None else Path(record),
        removed=removed,
    )


def _samples(path: Path) -> dict[str, dict[str, Place]]:
    """Where the pictures of one shard lie, by sample and field."""
    samples: dict[str, dict[str, Place]] = {}
    try:
        with tarfile.open(path, "r:") as archive:  # not compressed: then parts can be read by themselves
            for member in archive:
                name = PurePosixPath(member.name)
                stem, *endings = name.name.split(".")
                if not member.isfile() or not stem or not endings:
                    continue
                if f".{endings[-1].lower()}" not in PICTURE_ENDINGS:
                    continue
                field = endings[0].lower() if len(endings) > 1 else "hq"
                if field in _FIELDS:
                    key = str(name.with_name(stem))
                    place = Place(path, member.offset_data, member.size, member.name)
                    samples.setdefault(key, {})[field] = place
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such shard") from error
    except (tarfile.TarError, OSError) as error:
        raise DataError(
            f"{path}: is no plain tar file, or is damaged ({error}); a compressed one has to be unpacked: "
            f"gunzip {path.name}"
        ) from error
    return samples


def _shards(shards: str | Path | Sequence[str | Path]) -> list[Path]:
    given = [shards] if isinstance(shards, str | Path) else list(shards)
    paths: list[Path] = []
    for item in given:
        for text in _numbered(str(item)):
            path = Path(text)
            if path.is_dir():
                paths += sorted(path.glob("*.tar"))
            elif not path.exists() and any(sign in text for sign in "*?["):
                paths += [Path(found) for found in sorted(glob(text))]  # noqa: PTH207  (absolute ones too)
            else:
                paths.append(path)
    if not paths:
        raise DataError(f"{', '.join(map(str, given))}: there is no shard (a file that ends in .tar)")
    return paths


def _numbered(text: str) -> list[str]:
    """`a-{08..11}.tar` as its four names; a text without such a range is itself."""
    match = _RANGE.search(text)
    if match is None:
        return [text]
    first, last = match.groups()
    numbers = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    return [name for n in numbers for name in _numbered(text[: match.start()] + n + text[match.end() :])]
