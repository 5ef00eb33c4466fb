"""The public names and their parameters, compared with what was promised.

A change here is a change for every user. When it is meant, write the new promise down with

    python tests/architecture/test_public_api.py
"""

import dataclasses
import enum
import importlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import facerestore

SNAPSHOT = Path(__file__).with_name("public_api.json")


def signature(value: Any) -> str:
    """Parameters by name, kind and plain default; annotations are the type checker's business."""
    parts: list[str] = []
    starred = False
    for p in inspect.signature(value).parameters.values():
        if p.name in ("self", "cls"):
            continue
        if p.kind is p.KEYWORD_ONLY and not starred:
            parts.append("*")
            starred = True
        if p.kind is p.VAR_POSITIONAL:
            starred = True
        text = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "") + p.name
        if p.default is not p.empty:
            text += f"={p.default!r}" if isinstance(p.default, int | float | str | None) else "=..."
        parts.append(text)
    return f"({', '.join(parts)})"


def described(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if inspect.isclass(value):
        plain = issubclass(value, BaseException) or issubclass(value, enum.Enum)
        yield name, f"class{'' if plain else signature(value)}"
        for field in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
            yield f"{name}.{field.name}", "field"
        for member, what in vars(value).items():
            if member.startswith("_"):
                continue
            if isinstance(what, property):
                yield f"{name}.{member}", "property"
            elif isinstance(what, classmethod | staticmethod) or inspect.isfunction(what):
                yield f"{name}.{member}", f"def{signature(getattr(value, member))}"
    elif inspect.isroutine(value):
        yield name, f"def{signature(value)}"
    else:
        yield name, type(value).__name__


def public_api() -> dict[str, str]:
    api: dict[str, str] = {}
    for name in facerestore._EXPORTS:
        api.update(described(name, getattr(facerestore, name)))
    for package in facerestore._PACKAGES:
        module = importlib.import_module(f"facerestore.{package}")
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and str(getattr(value, "__module__", "")).startswith("facerestore.")
        ]
        for name in names:
            api.update(described(f"{package}.{name}", getattr(module, name)))
    return dict(sorted(api.items()))


def test_public_api_is_what_was_promised():
    promised, actual = json.loads(SNAPSHOT.read_text("utf-8")), public_api()
    gone = sorted(set(promised) - set(actual))
    new = sorted(set(actual) - set(promised))
    changed = {name: (promised[name], actual[name]) for name in set(promised) & set(actual)
               if promised[name] != actual[name]}  # fmt: skip
    assert (gone, changed, new) == ([], {}, []), f"if this is meant: python {Path(__file__).name}"


def test_the_snapshot_holds_what_users_type():
    promised = json.loads(SNAPSHOT.read_text("utf-8"))
    typed = {"load", "read_image", "write_image", "list_recipes", "FaceResult.identity_similarity"}
    methods = {"Pipeline.restore", "Pipeline.restore_many", "Pipeline.restore_aligned", "WeightStore.verify"}
    assert typed | methods <= set(promised)


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(public_api(), indent=1) + "\n", "utf-8")
