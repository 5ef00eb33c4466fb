"""Data sets that a CSV table describes: a row a picture, a column for its file, others for what is known."""

import csv
from pathlib import Path

from facerestore.core.errors import DataError
from facerestore.data.index import Entry, Index, Place, Removed, require_some, select
from facerestore.data.scan import Checks, scan

Where = dict[str, str | tuple[str, ...]]


def index_table(
    table: str | Path,
    checks: Checks | None = None,
    *,
    where: Where | None = None,
    file: str = "file",
    folder: str | Path | None = None,
    record: str | Path | None = None,
) -> Index:
    """The pictures that a table names, in its order, with all other columns as facts of their entries.

    Args:
        table: CSV with a line of names first.
        checks: what a picture must be.
        where: which rows are taken, as in `select`; the others are not opened, but counted.
        file: the column with the path of the picture.
        folder: to which these paths are relative; that of the table by default.
        record: see `index_folder`.

    Raises:
        DataError: if the table cannot be read, or lacks the column.
        ConfigError: if `where` names no column.
        EmptyDataset: if no row can be used.
        OutputError: if the record cannot be written.
    """
    path = Path(table)
    root = path.parent if folder is None else Path(folder)
    entries: dict[str, Entry] = {}
    removed: list[Removed] = []
    for number, row in enumerate(_rows(path, file), 2):
        key = row.pop(file)
        if key in entries:
            removed.append(Removed(key, "named twice", f"line {number} of {path}"))
        else:
            entries[key] = Entry(key=key, files={"hq": Place(root / key)}, facts=row)
    index = require_some(Index(tuple(entries.values()), tuple(removed)), path)
    if where:
        index = select(index, where)
    return scan(
        index.entries,
        checks or Checks(),
        what=path,
        record=None if record is None else Path(record),
        removed=index.removed,
    )


def _rows(path: Path, file: str) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, restval="")
            names = reader.fieldnames or []
            rows = [{name: row[name] for name in names} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({error})") from error
    if file not in names:
        raise DataError(f"{path}: has no column {file!r}; the columns are {', '.join(names) or 'none'}")
    return [row for row in rows if row[file]]
