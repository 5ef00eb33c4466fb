"""`facerestore demo`: what `make demo` runs."""

from pathlib import Path
from typing import Annotated

import typer

from facerestore.cli.console import FAILED, out, reports_errors, say_error
from facerestore.cli.restore import summed_up
from facerestore.cli.run import RunView
from facerestore.core.errors import FaceRestoreError


@reports_errors
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the results.")],
    photos: Annotated[Path, typer.Option(metavar="DIR", help="Whole photographs.")],
    faces: Annotated[Path, typer.Option(metavar="DIR", help="Aligned face crops.")],
) -> None:
    """Restore the examples with the default recipe, and show them on sheet.png and report.html.

    Everything is done anew each time, so that the sheet shows every face.
    """
    from facerestore import recipes
    from facerestore.batch import restore_folder
    from facerestore.imaging.read import DEFAULT_MAX_PIXELS
    from facerestore.pipeline import RestorationOptions
    from facerestore.report import Sheet

    pipe = recipes.load("lite")
    sheet, failed = Sheet(), 0
    lines: list[str] = []
    with RunView(report=output / "report.html", sheet=sheet, max_pixels=DEFAULT_MAX_PIXELS) as view:
        try:
            for folder, aligned in ((photos, False), (faces, True)):
                target = output / folder.name
                summary = restore_folder(
                    pipe,
                    [folder],
                    target,
                    options=RestorationOptions(aligned=aligned),
                    overwrite=True,
                    on_start=view.start,
                    on_item=view.item,
                )
                failed += summary.failed
                lines.append(summed_up(summary, target))
            sheet.write(output / "sheet.png")
            view.finish_report()
        except FaceRestoreError as error:
            if not view.begun:
                raise
            say_error(error)
            raise typer.Exit(FAILED) from error
    view.print_table()
    for line in (*lines, f"look at {output / 'sheet.png'} and {output / 'report.html'}"):
        out().print(line)
    if failed:
        raise typer.Exit(FAILED)
