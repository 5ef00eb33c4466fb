"""`facerestore recipes`: the systems, and what is in one."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from facerestore.cli.console import out, reports_errors

if TYPE_CHECKING:
    from facerestore.recipes import RecipeInfo


@reports_errors
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Show every stage, weight and source of this one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """The table of recipes, or one of them in full."""
    from facerestore.recipes import get, list_recipes

    if name is None:
        table = list_recipes()
        if as_json:
            out().print_json(json.dumps([dataclasses.asdict(info) for info in table]))
        else:
            _print_table(table)
        return
    recipe = get(name)
    weights = _weights(recipe.weights())
    if as_json:
        out().print_json(json.dumps({"recipe": recipe.to_dict(), "weights": weights}))
        return
    out().print(f"{name}: {recipe.summary} ({recipe.status})\n\nsettings, for --set:")
    for path, value in _settings(recipe.to_dict()):
        out().print(f"  {path} = {value}")
    out().print("\nweights:")
    for weight in weights:
        size = f"{weight['bytes'] / 1e6:.1f} MB"
        out().print(
            f"  {weight['name']}: {size}, {weight['licence']}, {weight['net']}, from {weight['source']}"
        )
        out().print(f"    {weight['citation']}")


def _print_table(infos: "tuple[RecipeInfo, ...]") -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("recipe", "stages", "status", "size", "licences", "what it is"):
        table.add_column(column, justify="right" if column == "size" else "left", overflow="fold")
    for info in infos:
        what = f"the default, now {info.alias_of}" if info.alias_of else info.summary
        size = f"{info.bytes / 1e6:.1f} MB"
        table.add_row(info.name, " > ".join(info.stages), info.status, size, ", ".join(info.licences), what)
    out().print(table, soft_wrap=False)


def _weights(names: tuple[str, ...]) -> list[dict[str, Any]]:
    from facerestore.weights.store import WeightStore

    store = WeightStore()
    return [dataclasses.asdict(store.spec(name)) for name in names]


def _settings(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every field as (path, value), the paths as `--set` takes them."""
    if isinstance(value, dict):
        below = [
            (key, item) for key, item in value.items() if key not in ("kind", "name", "summary", "status")
        ]
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        below = [(str(index), item) for index, item in enumerate(value)]
    else:
        return [(path, ",".join(map(str, value)) if isinstance(value, list) else value)]
    return [line for key, item in below for line in _settings(item, f"{path}.{key}" if path else key)]
