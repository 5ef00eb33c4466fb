"""Folders of pictures, alone and in pairs, and BasicSR's meta-info lists."""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from facerestore.core.errors import DataError
from facerestore.data.index import Entry, Index, Place, Removed
from facerestore.data.scan import Checks, scan
from facerestore.imaging.tree import PICTURE_ENDINGS, pictures_below

_SHAPE = re.compile(r"\s*\(\s*\d+\s*,\s*\d+\s*,\s*\d+\s*\)(?:\s+\d+)?\s*$")  # (h,w,c), and lmdb's compression


def index_folder(
    folder: str | Path, checks: Checks | None = None, *, record: str | Path | None = None
) -> Index:
    """The usable pictures of a folder and of those below it; an entry's key is its relative path.

    Args:
        folder: hidden files and folders in it are left out.
        checks: what a picture must be.
        record: a JSON file in which to remember what was seen, so that the next time only new and changed
            pictures are read; None for nowhere.

    Raises:
        DataError: if it is no folder.
        EmptyDataset: if no picture in it can be used.
        OutputError: if the record cannot be written.
    """
    found = _found(folder)
    entries = [Entry(key=key, files={"hq": Place(path)}) for key, path in found.items()]
    return scan(entries, checks or Checks(), what=folder, record=_path(record))


def index_pairs(
    hq_folder: str | Path,
    lq_folder: str | Path,
    checks: Checks | None = None,
    *,
    record: str | Path | None = None,
) -> Index:
    """Pictures of two folders that lie at the same place in both; the ending of the name may differ.

    A picture without its other half is left out as `no lq` or `no hq`.

    Args:
        hq_folder: the targets; they give the keys.
        lq_folder: the degraded ones, of any size.
        checks: what an `hq` must be.
        record: see `index_folder`.

    Raises:
        DataError: if one of them is no folder, or two degraded pictures could belong to one target.
        EmptyDataset: if there is no pair.
        OutputError: if the record cannot be written.
    """
    targets, degraded = _found(hq_folder), _found(lq_folder)
    by_stem: dict[str, list[str]] = {}
    for key in degraded:
        by_stem.setdefault(_stem(key), []).append(key)
    entries: list[Entry] = []
    removed: list[Removed] = []
    used: set[str] = set()
    for key, path in targets.items():
        candidates = [key] if key in degraded else by_stem.get(_stem(key), [])
        if not candidates:
            removed.append(Removed(key, "no lq", f"nothing of that name in {lq_folder}"))
            continue
        if len(candidates) > 1:
            raise DataError(f"{key} could belong to {' or '.join(candidates)} in {lq_folder}; rename one")
        used.add(candidates[0])
        entries.append(Entry(key=key, files={"hq": Place(path), "lq": Place(degraded[candidates[0]])}))
    removed += [
        Removed(key, "no hq", f"nothing of that name in {hq_folder}") for key in degraded if key not in used
    ]
    return scan(
        entries,
        checks or Checks(),
        what=f"{hq_folder} with {lq_folder}",
        record=_path(record),
        removed=removed,
    )


def index_list(
    meta_info: str | Path,
    hq_folder: str | Path,
    lq_folder: str | Path | None = None,
    checks: Checks | None = None,
    *,
    record: str | Path | None = None,
) -> Index:
    """The pictures that a BasicSR meta-info list names, in its order.

    A line is `name`, `name (h,w,c)`, or `target, degraded` as Real-ESRGAN writes pairs. With `lq_folder` and
    one name in the line, both folders hold it. BasicSR's lmdb lists read alike, but their pictures have to
    lie in a folder.

    Args:
        meta_info: the text file; empty lines and lines that start with `#` are skipped.
        hq_folder: to which the names are relative.
        lq_folder: to which the second names are relative; `hq_folder` by default, if lines have two.
        checks: what an `hq` must be.
        record: see `index_folder`.

    Raises:
        DataError: if the list cannot be read, or a name leads out of its folder.
        EmptyDataset: if nothing that it names can be used.
        OutputError: if the record cannot be written.
    """
    hq_root, lq_root = Path(hq_folder), Path(hq_folder if lq_folder is None else lq_folder)
    entries: dict[str, Entry] = {}
    removed: list[Removed] = []
    for number, names in _lines(Path(meta_info)):
        if lq_folder is not None and len(names) == 1:
            names = names * 2
        for name in names:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise DataError(f"{meta_info}, line {number}: {name} leads out of the folder")
        places = {
            field: Place(root / name)
            for field, root, name in zip(("hq", "lq"), (hq_root, lq_root), names, strict=False)
        }
        missing = [str(place) for place in places.values() if not place.path.is_file()]
        if names[0] in entries:
            removed.append(Removed(names[0], "named twice", f"line {number} of {meta_info}"))
        elif missing:
            removed.append(Removed(names[0], "missing", f"no file {' and '.join(missing)}"))
        else:
            entries[names[0]] = Entry(key=names[0], files=places)
    return scan(
        list(entries.values()), checks or Checks(), what=meta_info, record=_path(record), removed=removed
    )


def _found(folder: str | Path) -> dict[str, Path]:
    """Every picture below a folder by its key."""
    top = Path(folder)
    if not top.is_dir():
        raise DataError(
            f"{top}: is no folder; inside one these endings count: {' '.join(sorted(PICTURE_ENDINGS))}"
        )
    return {place.as_posix(): path for path, place in pictures_below(top)}


def _lines(meta_info: Path) -> Iterable[tuple[int, tuple[str, ...]]]:
    """The number of each line and the one or two names in it."""
    try:
        text = meta_info.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{meta_info}: cannot be read as a list of names ({error})") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        names = tuple(part.strip() for part in _SHAPE.sub("", line).split(", "))
        if len(names) > 2 or not all(names):
            raise DataError(
                f"{meta_info}, line {number}: expected `name (h,w,c)` or `target, degraded`, got {line!r}"
            )
        yield number, names


def _stem(key: str) -> str:
    return str(PurePosixPath(key).with_suffix(""))


def _path(record: str | Path | None) -> Path | None:
    return None if record is None else Path(record)
