"""`facerestore weights bundle`: a folder of weights for a machine without network."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from facerestore.cli.console import err, out, reports_errors, shown
from facerestore.cli.named import weights_of


@reports_errors
def bundle(
    names: Annotated[
        list[str], typer.Argument(metavar="RECIPE|NAME...", help="All of a recipe, or single weights.")
    ],
    folder: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Completed, if it is there already.")
    ],
) -> None:
    """Copy what is here of recipes' weights into one folder, verified; there, FACERESTORE_WEIGHTS names it.

    What ships with facerestore is left out. The same command goes on where an interrupted one stopped.
    """
    from facerestore.weights.bundle import bundle as bundle_weights

    wanted = dict.fromkeys(weight for name in names for weight in weights_of(name))
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err()) as bars:
        rows = {name: bars.add_task(name, start=False, visible=False) for name in wanted}

        def show(name: str, done: int, total: int) -> None:
            bars.start_task(rows[name])
            bars.update(rows[name], completed=done, total=total, visible=True)

        bundled = bundle_weights(wanted, folder, on_progress=show)
    for name, path in bundled.items():
        out().print(f"{name}: {shown(path)}")
    shipped = [name for name in wanted if name not in bundled]
    if shipped:
        out().print(f"left out, because facerestore has them with it: {', '.join(shipped)}")
    out().print(f"on the other machine: FACERESTORE_WEIGHTS={shown(folder.absolute())}, or where you put it")
