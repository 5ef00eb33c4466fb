"""Which pictures a folder holds."""

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

WRITTEN_ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".avif"}
)
"""Endings of pictures that can be written as well."""

PICTURE_ENDINGS = WRITTEN_ENDINGS | frozenset(
    {".gif", ".heic", ".heif", ".jp2", ".tga", ".ppm", ".pgm", ".pbm", ".pnm"}
)
"""What counts as a picture inside a folder; a file named directly is always tried."""


def pictures_below(top: Path, *, skip: Iterable[Path] = ()) -> list[tuple[Path, PurePosixPath]]:
    """Every picture below `top` and its path there, sorted; nothing of it is opened.

    Hidden files and folders are left out; a folder reached twice, through a link or a loop of links, is
    searched once, real folders before linked ones. A folder that cannot be opened is in the list itself, so
    that reading it fails by name.

    Args:
        top: the folder.
        skip: folders that are not searched.
    """
    seen = {real_place(folder) for folder in skip} - {real_place(top)}
    found: list[tuple[Path, PurePosixPath]] = []
    real, linked = [top], list[Path]()
    while real or linked:
        folder = real.pop() if real else linked.pop(0)
        if real_place(folder) in seen:
            continue
        seen.add(real_place(folder))
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            found.append((folder, PurePosixPath(folder.name)))
            continue
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            if path.is_dir():  # `entry.is_dir()` raises for a link to itself
                (linked if entry.is_symlink() else real).append(path)
            elif path.suffix.lower() in PICTURE_ENDINGS:
                found.append((path, PurePosixPath(path.relative_to(top).as_posix())))
    return sorted(found, key=lambda pair: pair[1].parts)


def real_place(path: Path) -> str:
    """The place on disk that a path leads to, equal for equal places."""
    return os.path.normcase(os.path.realpath(path))
