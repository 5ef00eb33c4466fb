"""What `restore` and `demo` show of a run: a bar while it goes on, a row a face at the end, the report."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from facerestore.cli.console import err, out, shown

if TYPE_CHECKING:
    from facerestore.batch import ItemResult
    from facerestore.batch.inputs import Item
    from facerestore.imaging.photo import Photo
    from facerestore.report import ReportWriter, Sheet

_ROWS_SHOWN = 100


class RunView:
    """Shows a run, or several one after another; use it in a `with` block.

    Args:
        report: where a page with every picture goes, if one is wanted.
        sheet: collects the faces that are restored, if one is wanted.
        max_pixels: as in `read_image`, for reading the pictures that go into the report.

    Attributes:
        begun: whether a picture was about to be restored.
    """

    def __init__(self, *, report: Path | None, sheet: "Sheet | None", max_pixels: int) -> None:
        self.begun = False
        self._report_path = report
        self._report: ReportWriter | None = None
        self._sheet = sheet
        self._max_pixels = max_pixels
        self._faces = 0
        self._rows: list[tuple[str, ...]] = []
        self._rows_left_out = 0
        self._closing = ExitStack()
        self._progress = Progress(
            TextColumn("restoring"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("pictures,"),
            _FacesPerSecond(),
            TimeRemainingColumn(),
            console=err(),
            transient=True,
        )
        self._task = self._progress.add_task("restoring", total=None, faces=0)

    def __enter__(self) -> Self:
        self._closing.enter_context(self._progress)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def start(self, todo: "Sequence[Item]") -> None:
        """Learn how many pictures there are; the output folder is ours from here on."""
        self.begun = True
        before = self._progress.tasks[0].total or 0
        self._progress.update(self._task, total=before + len(todo))
        if self._report_path is not None and self._report is None:
            from facerestore.report import ReportWriter

            self._report = self._closing.enter_context(ReportWriter(self._report_path))

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        self._progress.console.print(shown(text))

    def item(self, result: "ItemResult") -> None:
        """Take a picture into the bar, the table and the report."""
        row = result.row
        if row["status"] == "failed":
            line = Text("failed: ", "bold red").append(shown(named(row["source"], row["error"])), "default")
            self._progress.console.print(line)
        if not result.earlier:
            self._faces += sum(face["status"] == "restored" for face in row["faces"])
            self._progress.update(self._task, advance=1, faces=self._faces)
        for cells in _table_rows(result):
            if len(self._rows) < _ROWS_SHOWN:
                self._rows.append(cells)
            else:
                self._rows_left_out += 1
        if self._report is not None:
            self._report.add(row, self._read(result.item.source), self._read(result.path))
        if self._sheet is not None and result.restoration is not None:
            self._sheet.add(result.restoration)

    def finish_report(self) -> None:
        """Write the page, if one was wanted."""
        if self._report is not None:
            self._report.finish()

    def print_table(self) -> None:
        """Print one row a face, and a row for every picture without one; sizes are in pixels."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("file", overflow="fold")
        for name in ("face", "size", "entry", "conf.", "distance", "similarity"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("status", no_wrap=True)
        for cells in self._rows:
            table.add_row(*map(Text, cells))
        console = out()
        console.print(table, soft_wrap=False)
        if self._rows_left_out:
            console.print(f"and {self._rows_left_out} more rows, all of them in manifest.jsonl")

    def _read(self, path: Path | None) -> "Photo | None":
        from facerestore.core.errors import ImageError
        from facerestore.imaging.read import read_image

        if path is None:
            return None
        try:
            return read_image(path, max_pixels=self._max_pixels)
        except ImageError:
            return None


class _FacesPerSecond(TextColumn):
    """The rate, by what was restored since the bar appeared."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        rate = task.fields["faces"] / task.elapsed if task.elapsed else 0
        return Text(f"{rate:.2f} faces/s")


def named(source: str, error: str) -> str:
    """The error, with the file in front unless it names it already."""
    return error if Path(source).name in error else f"{source}: {error}"


def _table_rows(result: "ItemResult") -> list[tuple[str, ...]]:
    row = result.row
    name = shown(result.item.place)
    again = ", done before" if result.earlier else ""
    if not row["faces"]:
        nothing = "" if row["output_sha256"] or row["status"] == "failed" else ", skipped"
        return [(name, "", "", "", "", "", "", row["status"] + nothing + again)]
    return [
        (
            name,
            str(face["index"] + 1),
            f"{face['size_px']:.0f}",
            _number(face["facts"].get("entry_px"), 0),
            _number(face["confidence"], 2),
            _number(face["identity_distance"], 2),
            _number(face["identity_similarity"], 2),
            face["status"] + again,
        )
        for face in row["faces"]
    ]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
