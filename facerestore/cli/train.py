"""`facerestore train`: a training job by name, resumed by itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from facerestore.cli.console import FAILED, INTERRUPTED, err, out, reports_errors, say_error, shown
from facerestore.cli.restore import pairs
from facerestore.core.errors import OutputError, TrainingError

if TYPE_CHECKING:
    from facerestore.training import StepReport


@reports_errors
def train(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Its name; `list` prints them.")],
    faces: Annotated[
        str, typer.Option(metavar="PATH", help="Sharp aligned faces: a folder, a table, a list.")
    ] = "",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="DIR", help="Folder of the run; runs/JOB by default.")
    ] = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A field of the job.")
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PATH", help="A weight of your own.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]|mps")] = "auto",
) -> None:
    """Train. The same command goes on where an earlier one stopped, from its last checkpoint.

    On several processes: `accelerate launch -m facerestore train JOB ...`.

    Exit status: 0 trained to the end and exported; 1 it cannot go on, the checkpoints are whole; 2 wrong use,
    nothing was begun; 130 stopped by a signal, saved.
    """
    from facerestore.recipes.training import JOBS, get_job

    if job == "list":
        for name, function in JOBS.items():
            summary = (function.__doc__ or "").partition("\n")[0]
            out().print(f"{name:22} {summary}")
        return
    chosen = get_job(job, faces, output)
    for path, text in pairs(set_, "--set").items():
        chosen = chosen.override(path, text)

    from facerestore.training import Trainer
    from facerestore.weights.names import resolve
    from facerestore.weights.store import WeightStore

    files = resolve(pairs(weights, "--weights"), chosen.task.weights())
    trainer = Trainer(chosen, WeightStore(paths=files), device=device)
    main = trainer.accelerator.is_main_process
    if main:
        err().print(shown(f"{chosen.name}: {trainer.stream.index.summary()}; from step {trainer.step}"))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err(), transient=True, disable=not main) as progress:
        bar = progress.add_task(chosen.name, total=chosen.max_steps, completed=trainer.step)

        def tell(report: "StepReport") -> None:
            losses = " ".join(
                f"{name.partition('/')[2]} {value:.3g}" for name, value in report.losses.items()
            )
            text = f"{losses}  {report.faces_per_second:.2f} faces/s"
            progress.update(bar, completed=report.step, description=text)

        try:
            done = trainer.fit(tell)
        except (TrainingError, OutputError) as error:
            say_error(error)
            raise typer.Exit(FAILED) from error
    if not done:
        err().print(shown(f"stopped after step {trainer.step}, saved; the same command goes on from here"))
        raise typer.Exit(INTERRUPTED)
    if main:
        for path in trainer.export():
            out().print(shown(Path(path)))
