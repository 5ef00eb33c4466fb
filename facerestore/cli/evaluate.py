"""`facerestore evaluate`: what restored faces are worth, by a protocol that has a name."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from facerestore.cli.console import FAILED, err, out, reports_errors, say_error, shown
from facerestore.cli.restore import pairs
from facerestore.core.errors import ConfigError, FaceRestoreError

if TYPE_CHECKING:
    from facerestore.evaluation import Row

_RECIPE, _COMPARED, _MACHINE = "Restore first", "Compared with", "Machine"


@reports_errors
def evaluate(
    restored: Annotated[
        Path | None, typer.Argument(metavar="[RESTORED]", help="Folder of restored pictures.")
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE.toml", help="ntire2026-report, ntire2026-code, ntire2025, papers, or your own."
        ),
    ] = "ntire2026-code",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Of the report; RESTORED-PROTOCOL by default."),
    ] = None,
    lq: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The degraded pictures.", rich_help_panel=_COMPARED)
    ] = None,
    hq: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The sharp pictures.", rich_help_panel=_COMPARED)
    ] = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(metavar="report.json", help="Of another run, to compare.", rich_help_panel=_COMPARED),
    ] = None,
    landmarks: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Five points a face; else they are found.")
    ] = None,
    thresholds: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="Of identity: lines SUBSET = SIMILARITY.")
    ] = None,
    attributes: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Attributes of pictures, for means by them.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Restore the degraded pictures with it first.", rich_help_panel=_RECIPE)
    ] = "",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A field of the recipe.", rich_help_panel=_RECIPE),
    ] = None,
    adapter: Annotated[
        list[str] | None, typer.Option(metavar="PATH", help="An adapter.", rich_help_panel=_RECIPE)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of every random draw.", rich_help_panel=_RECIPE)] = 0,
    strength: Annotated[float, typer.Option(help="0 input, 1 restored.", rich_help_panel=_RECIPE)] = 1.0,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=PATH", help="A weight of your own, of a metric or the recipe."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]|mps", rich_help_panel=_MACHINE)] = "auto",
    dtype: Annotated[str, typer.Option(metavar="auto|fp32|bf16|fp16", rich_help_panel=_MACHINE)] = "auto",
    offload: Annotated[
        str, typer.Option(metavar="auto|none|stages|model", rich_help_panel=_MACHINE)
    ] = "auto",
) -> None:
    """Measure restored faces, or restore and measure. Metrics are computed in float32.

    What cannot be measured here is named with the reason, and never guessed. Run the same command again after
    an interruption: it goes on. On several processes: `accelerate launch -m facerestore evaluate ...`.

    Exit status: 0 everything was measured; 1 pictures are missing or could not be measured (each named, the
    rest done); 2 wrong use, nothing was begun; 130 interrupted.
    """
    if (restored is None) == (not recipe):
        raise ConfigError("name the folder of restored pictures, or --recipe to restore --lq DIR first")
    if recipe and (lq is None or output is None):
        raise ConfigError("--recipe restores what is in --lq DIR, into -o DIR")

    from facerestore import evaluation, recipes
    from facerestore.evaluation.measuring import weights_of
    from facerestore.evaluation.processes import Processes
    from facerestore.evaluation.protocol import read_thresholds
    from facerestore.evaluation.restoring import restore_set
    from facerestore.weights.names import resolve
    from facerestore.weights.store import WeightStore

    chosen = evaluation.find_protocol(protocol)
    if thresholds is not None:
        chosen = read_thresholds(thresholds, chosen)
    given, measuring = pairs(weights, "--weights"), weights_of(chosen)
    # A recipe has words of its own for its weights; with one, those of metrics go by their full names.
    of_metrics = {name: path for name, path in given.items() if name in measuring or not recipe}
    store = WeightStore(paths=resolve(of_metrics, measuring))
    made_by: Mapping[str, Any] = {}
    folder = output or _beside(cast("Path", restored), chosen.name)
    with Processes.of_environment() as processes, _Bar() as bar:
        try:
            if recipe:
                restored = folder / "restored"
                pipe = recipes.load(
                    recipe, device=device, dtype=cast("Any", dtype), offload=cast("Any", offload),
                    weights={name: path for name, path in given.items() if name not in of_metrics},
                    adapters=adapter or [], settings=pairs(set_, "--set"),
                )  # fmt: skip
                made_by = restore_set(
                    pipe, cast("Path", lq), restored, processes, seed=seed, strength=strength,
                    on_start=bar.restoring, on_picture=bar.picture,
                )  # fmt: skip
                processes.wait()
            report = evaluation.evaluate(
                chosen, cast("Path", restored), output_dir=folder, lq=lq, hq=hq, landmarks=landmarks,
                attributes=attributes, store=store, device=device, made_by=made_by,
                title=recipe, compared_with=compare or (), on_start=bar.measuring, on_row=bar.row,
            )  # fmt: skip
        except FaceRestoreError as error:
            if not bar.begun:
                raise
            say_error(error)
            raise typer.Exit(FAILED) from error
    if report is None:
        return
    out().print(shown_lines(report.markdown().partition("## What was measured")[0]))
    out().print(f"everything, with pictures: {shown(folder / 'report.html')}")
    if report.problems:
        raise typer.Exit(FAILED)


def shown_lines(text: str) -> str:
    """Several lines that are safe on a terminal."""
    return "\n".join(shown(line) for line in text.splitlines())


def _beside(restored: Path, protocol: str) -> Path:
    whole = restored.resolve()
    return whole.with_name(f"{whole.name}-{protocol}")


class _Bar:
    """What is shown while a run goes on; names what fails as it fails."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=err(), transient=True)
        self._task = self._progress.add_task("reading", total=None)
        self.begun = False

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def restoring(self, count: int) -> None:
        self.begun = True
        self._progress.update(self._task, description="restoring", total=count, completed=0)

    def picture(self, key: str, error: str) -> None:
        if error:
            self._say(f"{key}: {error}")
        self._progress.advance(self._task)

    def measuring(self, count: int, absent: Mapping[str, str]) -> None:
        self.begun = True
        for name, reason in absent.items():
            err().print(Text("not measured: ", "bold yellow").append(shown(f"{name}: {reason}"), "default"))
        self._progress.update(self._task, description="measuring", total=count, completed=0)

    def row(self, row: "Row") -> None:
        if row.problem:
            self._say(f"{row.key}: {row.problem[1]}")
        for name, reason in row.errors.items():
            self._say(f"{row.key}, {name}: {reason}")
        self._progress.advance(self._task)

    def _say(self, text: str) -> None:
        self._progress.console.print(Text("failed: ", "bold red").append(shown(text), "default"))
