"""`facerestore weights fetch`: bring weights from a hub into the cache."""

from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from facerestore.cli.console import FAILED, err, out, reports_errors, say_error, shown
from facerestore.cli.named import weights_of
from facerestore.core.errors import LicenceNotAccepted, OfflineMode, WeightsError


@reports_errors
def fetch(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME|RECIPE...", help="Weights, or all of a recipe.")
    ],
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the licences that ask for it, for good.")
    ] = False,
) -> None:
    """Bring weights that are not there yet from a hub (`HF_ENDPOINT`) into the cache.

    A cut download goes on where it stopped. Exit status 1 if a weight did not come, 2 if nothing was begun.
    """
    from facerestore.weights.fetch import fetch as fetch_weights

    wanted = dict.fromkeys(weight for name in names for weight in weights_of(name))
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=err()) as bars:
            rows = {name: bars.add_task(name, start=False, visible=False) for name in wanted}

            def show(name: str, there: int, total: int) -> None:
                bars.start_task(rows[name])
                bars.update(rows[name], completed=there, total=total, visible=True)

            found = fetch_weights(wanted, accept_licence=accept_licence, on_progress=show)
    except (LicenceNotAccepted, OfflineMode):
        raise
    except WeightsError as error:
        say_error(error)
        raise typer.Exit(FAILED) from error
    for name, path in found.items():
        out().print(f"{name}: {shown(path)}")
