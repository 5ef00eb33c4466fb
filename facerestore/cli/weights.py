"""`facerestore weights`: what recipes need, where it is, whether it is what it says; and bringing it in."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from facerestore.cli.bundle import bundle
from facerestore.cli.console import FAILED, out, reports_errors, say_error, shown
from facerestore.cli.fetch import fetch
from facerestore.cli.prepare import prepare
from facerestore.core.errors import WeightsError
from facerestore.weights.spec import WeightSpec, remote
from facerestore.weights.store import WeightStore

app = typer.Typer(help="List, show, fetch, prepare, import, verify and bundle weights.", no_args_is_help=True)
app.command()(fetch)
app.command()(prepare)
app.command()(bundle)


@app.command("list")
@reports_errors
def list_(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Every weight, those that ship first, its size and licence, and where it was found."""
    store = WeightStore()
    every = (*store.specs(), *remote())
    if as_json:
        out().print_json(json.dumps([_facts(store, spec) for spec in every]))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "size", "licence", "network", "found"):
        table.add_column(name, justify="right" if name == "size" else "left", overflow="fold")
    for spec in every:
        way = ": weights fetch" if spec.hub else ": weights prepare" if spec.made_of else ""
        found = _found(store, spec.name) or f"not here{way}"
        table.add_row(spec.name, f"{spec.bytes / 1e6:.1f} MB", spec.licence, spec.net, shown(found))
    out().print(table, soft_wrap=False)


@app.command()
@reports_errors
def show(name: Annotated[str, typer.Argument(help="See `facerestore weights list`.")]) -> None:
    """Everything that is known about one weight file."""
    store = WeightStore()
    for key, value in _facts(store, store.spec(name)).items():
        text = ", ".join(value) if isinstance(value, tuple) else value
        out().print(f"{key:9} {shown('missing' if text is None else text)}")


@app.command()
@reports_errors
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="All, if none is named.")
    ] = None,
) -> None:
    """Compare weight files with their known sha256. Exit status 1 if one differs or is missing."""
    store = WeightStore()
    wrong = 0
    for name in names or [spec.name for spec in store.specs()]:
        try:
            out().print(f"{name}: {shown(store.verify(name))} is what it should be")
        except WeightsError as error:
            say_error(error)
            wrong += 1
    if wrong:
        raise typer.Exit(FAILED)


@app.command("import")
@reports_errors
def import_(
    source: Annotated[Path, typer.Argument(help="A checkpoint as its authors publish it, or a PEFT folder.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="Must not be there yet.")],
    take: Annotated[
        str, typer.Option(metavar="PREFIX", help="Only what lies below this name, called without it.")
    ] = "",
    drop: Annotated[
        list[str] | None, typer.Option(metavar="PREFIX", help="Not what lies below this name; repeatable.")
    ] = None,
    like: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Must have the keys and shapes of this file.")
    ] = None,
) -> None:
    """Make a safetensors file of a Lightning, PEFT, BasicSR or plain checkpoint.

    Nothing of a pickle is executed: one that holds more than tensors and the usual settings is refused.
    """
    from facerestore.weights.convert import convert, read_checkpoint

    model = None if like is None else read_checkpoint(like).tensors
    made = convert(source, target, take=take, drop=drop or (), like=model)
    out().print(f"{shown(target)}: {len(made.tensors)} tensors, {target.stat().st_size / 1e6:.1f} MB")
    for key, value in made.metadata.items():
        out().print(f"  {shown(key)} {shown(value)}")
    if made.left_out:
        out().print(f"left out: {shown(', '.join(made.left_out))}")


def _facts(store: WeightStore, spec: WeightSpec) -> dict[str, Any]:
    return dataclasses.asdict(spec) | {"found": _found(store, spec.name)}


def _found(store: WeightStore, name: str) -> str | None:
    try:
        return str(store.find(name))
    except WeightsError:
        return None
