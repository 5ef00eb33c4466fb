"""`facerestore degrade`: low-quality pictures of good ones."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from facerestore.cli.console import FAILED, err, out, reports_errors, say_error, shown
from facerestore.cli.restore import pairs
from facerestore.cli.run import named
from facerestore.core.errors import FaceRestoreError

if TYPE_CHECKING:
    from facerestore.batch.degrading import DegradedItem
    from facerestore.degradations import Preset


@reports_errors
def degrade(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT", help="Pictures, folders (recursive) or patterns.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the results.")],
    preset: Annotated[
        str, typer.Option(metavar="NAME|FILE.yml", help="A preset, or an option file of BasicSR.")
    ],
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A field of the preset, such as jpeg=codec."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]|mps")] = "auto",
) -> None:
    """Degrade pictures as restorers are trained with them. The same seed gives the same bytes.

    Writes PNG, and manifest.jsonl with what was drawn for each picture. The presets realesrgan_x4 and
    realesrgan_x2 write small pictures, all others the size of the input. What is done and intact is not done
    again.

    Exit status: 0 all done; 1 some inputs failed (each named, the rest done); 2 wrong use, nothing was begun;
    130 interrupted.
    """
    from facerestore.batch.degrading import degrade_folder
    from facerestore.core.precision import resolve_device
    from facerestore.degradations import find_preset, read_basicsr

    chosen: Preset = read_basicsr(preset) if Path(preset).suffix in (".yml", ".yaml") else find_preset(preset)
    for path, text in pairs(set_, "--set").items():
        chosen = chosen.override(path, text)
    counts: Counter[str] = Counter()
    begun = earlier = 0
    columns = (TextColumn("degrading"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=err(), transient=True)
    task = progress.add_task("degrading", total=None)

    def start(total: int) -> None:
        nonlocal begun
        begun = total
        progress.update(task, total=total)

    def item(done: "DegradedItem") -> None:
        nonlocal earlier
        counts[done.row["status"]] += 1
        earlier += done.earlier
        progress.update(task, advance=1)
        if done.row["status"] == "failed":
            line = named(done.row["source"], done.row["error"])
            progress.console.print(Text("failed: ", "bold red").append(shown(line), "default"))

    try:
        with progress:
            degrade_folder(
                inputs, output, chosen, seed=seed, device=resolve_device(device), on_start=start, on_item=item
            )
    except FaceRestoreError as error:
        if not begun:
            raise
        say_error(error)
        raise typer.Exit(FAILED) from error
    parts = [f"{count} {status}" for status, count in counts.items()]
    if earlier:
        parts.append(f"{earlier} of them done before")
    out().print(f"{', '.join(parts)}: {shown(output)}")
    if counts["failed"]:
        raise typer.Exit(FAILED)
