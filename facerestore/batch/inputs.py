"""Which pictures a run restores, and what each output is called."""

import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import Literal

from facerestore.core.errors import ConfigError
from facerestore.imaging.tree import PICTURE_ENDINGS, WRITTEN_ENDINGS, pictures_below, real_place

Format = Literal["same", "png", "jpg", "webp"]

OWN_NAMES = frozenset({"manifest.jsonl", "sheet.png", "report.html"})
"""What a run itself leaves in its output folder beside the pictures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One picture of a run.

    Attributes:
        source: the file, as it was named or found.
        place: where it stands in the tree that was given: its name, or its path below a folder.
        output: name of its output below the output folder.
    """

    source: Path
    place: PurePosixPath
    output: PurePosixPath


def plan(
    inputs: Iterable[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str],
    format: Format = "same",
    *,
    earlier_outputs: Collection[str] = (),
) -> tuple[Item, ...]:
    """List every picture that `inputs` name, in a stable order, each with an output name of its own.

    Folders are searched recursively and keep their tree below the output folder; hidden files and folders
    are skipped; a folder reached twice, through a link or a loop of links, is searched once. A pattern such
    as `scans/*.jpg` is expanded unless a file has exactly that name. What does not exist or cannot be opened
    stays in the list, so that it is reported by name while the rest is done. The output folder is never
    searched; where it is an input folder itself, what an earlier run wrote into it is no input.

    An output has the place of its input and the ending of its format. Names that several inputs want are
    told apart by the whole list, never by order. Pictures of the same place (`x/a.jpg` and `y/a.jpg`, each
    named directly) keep their path below the folder that they share. Of pictures with the same stem, the one
    that is called so already keeps the name, the others get the ending appended: with `png`, `a.png` and
    `a.jpg` become `a.png` and `a.jpg.png`.

    Args:
        inputs: files, folders and glob patterns.
        output_dir: folder of the outputs; need not exist yet.
        format: `same` keeps the ending where it can be written, else PNG.
        earlier_outputs: output names of earlier runs, from the manifest.

    Raises:
        ConfigError: if there is no picture at all, or an output would replace an input.
    """
    root = Path(output_dir)
    own = {real_place(root / name) for name in (*earlier_outputs, *OWN_NAMES)}
    found: dict[str, tuple[Path, PurePosixPath]] = {}
    given = [os.fspath(entry) for entry in inputs]
    for source, place in _expand(given, root):
        if real_place(source) not in own:
            found.setdefault(os.path.abspath(source), (source, place))  # noqa: PTH100  (links stay what they are)
    if not found:
        raise ConfigError(
            f"no picture in {', '.join(given) or 'nothing'}; inside a folder these endings count: "
            f"{' '.join(sorted(PICTURE_ENDINGS))}"
        )
    items = _name(_with_own_place(list(found.values())), format)
    sources = {real_place(item.source): item.source for item in items}
    for item in items:
        replaced = sources.get(real_place(root / item.output))
        if replaced is not None:
            raise ConfigError(
                f"the output of {item.source} would replace the input {replaced}; choose another folder"
            )
    return items


def _expand(given: list[str], output_dir: Path) -> Iterator[tuple[Path, PurePosixPath]]:
    """Yield (file, place) for every input, folders searched."""
    for text in given:
        is_pattern = has_magic(text) and not os.path.lexists(text)
        matches = sorted(glob(text, recursive=True)) if is_pattern else []  # noqa: PTH207  (absolute ones too)
        for path in map(Path, matches or [text]):
            if path.is_dir():
                yield from pictures_below(path, skip=[output_dir])
            elif not matches or path.suffix.lower() in PICTURE_ENDINGS:
                yield path, PurePosixPath(path.name)


def _folded(name: PurePosixPath) -> str:
    """Equal for names that the file systems of this platform take for the same."""
    if sys.platform in ("darwin", "win32"):
        return unicodedata.normalize("NFC", str(name)).casefold()
    return str(name)


def _with_own_place(found: list[tuple[Path, PurePosixPath]]) -> list[tuple[Path, PurePosixPath]]:
    """Replace a place that several files have by their path below the folder that these files share."""
    groups: dict[str, list[str]] = {}
    for source, place in found:
        groups.setdefault(_folded(place), []).append(os.path.abspath(source))  # noqa: PTH100
    result: list[tuple[Path, PurePosixPath]] = []
    for source, place in found:
        group = groups[_folded(place)]
        if len(group) > 1:
            below = os.path.relpath(os.path.abspath(source), os.path.commonpath(group))  # noqa: PTH100
            place = PurePosixPath(Path(below).as_posix())
        result.append((source, place))
    return result


def _name(found: list[tuple[Path, PurePosixPath]], format: Format) -> tuple[Item, ...]:
    """Give every place its output name, by the rule that `plan` states."""
    wanted = Counter(_folded(_plain(place, format)) for _, place in found)
    items: list[Item] = []
    taken: dict[str, Path] = {}
    for source, place in found:
        output = _plain(place, format)
        if wanted[_folded(output)] > 1 and output != place:
            output = _appended(place, format)
        other = taken.setdefault(_folded(output), source)
        if other is not source:
            raise ConfigError(f"{other} and {source} would both become {output}; restore them in two runs")
        items.append(Item(source=source, place=place, output=output))
    return tuple(items)


def _plain(place: PurePosixPath, format: Format) -> PurePosixPath:
    """The name with the ending of the format; `a.b` has no ending of a picture, so its `.b` stays."""
    if place.suffix.lower() not in PICTURE_ENDINGS:
        return _appended(place, format)
    return place.with_suffix(_ending(place, format))


def _appended(place: PurePosixPath, format: Format) -> PurePosixPath:
    return place.with_name(place.name + _ending(place, format))


def _ending(place: PurePosixPath, format: Format) -> str:
    if format != "same":
        return f".{format}"
    return place.suffix if place.suffix.lower() in WRITTEN_ENDINGS else ".png"
