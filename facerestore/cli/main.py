"""The app `facerestore`."""

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from facerestore.cli import data, degrade, demo, doctor, evaluate, recipes, restore, train, weights
from facerestore.cli.console import INTERRUPTED

app = typer.Typer(
    name="facerestore",
    help="Restore degraded faces. Restored detail is invented and no evidence of who somebody is.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("restore")(restore.restore)
app.command("degrade")(degrade.degrade)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("recipes")(recipes.recipes)
app.add_typer(weights.app, name="weights")
app.add_typer(data.app, name="data")
app.command("doctor")(doctor.doctor)
app.command("demo", hidden=True)(demo.demo)


def _version(asked: bool) -> None:
    if asked:
        from facerestore import __version__

        typer.echo(f"facerestore {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Restore degraded faces. Restored detail is invented and no evidence of who somebody is."""


def main() -> None:
    """Run the command line; being told to terminate ends a run as cleanly as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except KeyboardInterrupt:  # outside of any command
        sys.exit(INTERRUPTED)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
