"""How commands speak: results on stdout, everything else on stderr, errors as one line."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from facerestore.core.errors import FaceRestoreError, WeightsNotFound

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130


_WIDE = 200  # of what does not go to a terminal, so that rows stay on one line there


def out() -> Console:
    """Where results go."""
    width = None if sys.stdout.isatty() else _WIDE
    return Console(highlight=False, markup=False, soft_wrap=True, width=width)


def err() -> Console:
    """Where progress and errors go."""
    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)


def shown(value: object) -> str:
    """Text that is safe on a terminal: control characters, and bytes that are no Unicode, are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def say_error(message: object) -> None:
    """Write one line to stderr."""
    err().print(Text("error: ", "bold red").append(shown(message), "default"))


def reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command end with one line and the right exit status instead of a traceback.

    Typed errors that a command lets pass mean that nothing was begun: status 2. Ctrl-C: status 130.
    """

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except FaceRestoreError as error:
            # What is missing is a list; every other error is one line, whatever a file name holds.
            lines = str(error).split("\n") if isinstance(error, WeightsNotFound) else [error]
            say_error(lines[0])
            for line in lines[1:]:
                err().print(shown(line))
            raise typer.Exit(WRONG_USE) from error
        except KeyboardInterrupt as error:
            err().print("interrupted; the same command goes on from here")
            raise typer.Exit(INTERRUPTED) from error

    return run
