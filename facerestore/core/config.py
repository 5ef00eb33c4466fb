"""Frozen configurations: plain data that can be compared, serialised, overridden by path and fingerprinted.

A configuration is a `@dataclass(frozen=True, slots=True, kw_only=True)` that derives from `Config`.
Nested configurations and tuples of them are allowed; nothing in here imports torch.
"""

import difflib
import hashlib
import json
import types
import typing
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, Self, Union, get_args, get_origin

from facerestore.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Base of every configuration."""

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-ready data, each nested one with its class under `kind`."""
        return typing.cast("dict[str, Any]", _plain(self))

    def fingerprint(self) -> str:
        """First 16 hex digits of the sha256 of `to_dict()`: equal settings, equal fingerprint."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def override(self, path: str, text: str) -> Self:
        """A copy in which the field at `path` is parsed from `text`.

        Args:
            path: `detector.min_face_px`, `stage.stages.0.entry_px`; the last name alone (`entry_px`) where
            only one
                field of the whole configuration has it.
            text: the value as a person types it.

        Raises:
            ConfigError: if the path names no field, or several, or the text does not fit the field's type.
        """
        keys = path.split(".")
        if len(keys) == 1 and path not in [f.name for f in fields(self)]:
            found = [place for place in _places(self) if place[-1] == path]
            if len(found) > 1:
                raise ConfigError(
                    f"{path} is the name of several fields: {', '.join('.'.join(p) for p in found)}"
                )
            keys = found[0] if found else keys
        return typing.cast("Self", _override(self, keys, text, path))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        data = {"kind": type(value).__qualname__}
        return data | {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in typing.cast("tuple[Any, ...]", value)]
    return value


def _places(value: Any) -> list[list[str]]:
    """The path of every plain field below `value`."""
    if is_dataclass(value):
        items = [(f.name, getattr(value, f.name)) for f in fields(value)]
    elif isinstance(value, tuple):
        items = [(str(i), item) for i, item in enumerate(typing.cast("tuple[Any, ...]", value))]
    else:
        return [[]]
    return [[name, *rest] for name, item in items for rest in _places(item)]


def _override(value: Any, keys: list[str], text: str, path: str) -> Any:
    key, rest = keys[0], keys[1:]
    if isinstance(value, tuple):
        items = list(typing.cast("tuple[Any, ...]", value))
        if not key.isdigit() or int(key) >= len(items):
            raise ConfigError(f"{path}: {key!r} is no index below {len(items)}")
        if not rest:
            raise ConfigError(f"{path}: name a field of item {key}")
        items[int(key)] = _override(items[int(key)], rest, text, path)
        return tuple(items)
    if not is_dataclass(value) or isinstance(value, type):
        raise ConfigError(f"{path}: {key!r} lies below a plain value")
    names: list[str] = [f.name for f in fields(value)]
    if key not in names:
        near = difflib.get_close_matches(key, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the fields are {', '.join(names)}"
        raise ConfigError(f"{path}: {type(value).__qualname__} has no field {key!r}; {hint}")
    if rest:
        return replace(value, **{key: _override(getattr(value, key), rest, text, path)})
    annotation = typing.get_type_hints(type(value))[key]
    return replace(value, **{key: _parse(annotation, text, path)})


def _parse(annotation: Any, text: str, path: str) -> Any:  # noqa: C901 - one branch a type
    """Read `text` as the annotated type: bool, int, float, str, Literal, Optional, tuple of these."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        if text.lower() in ("none", "") and type(None) in args:
            return None
        for option in args:
            if option is not type(None):
                try:
                    return _parse(option, text, path)
                except ConfigError:
                    continue
        raise ConfigError(f"{path}: {text!r} is none of {annotation}")
    if origin is Literal:
        for choice in args:
            if text == str(choice):
                return choice
        raise ConfigError(f"{path}: {text!r} is not one of {', '.join(map(str, args))}")
    if origin is tuple:
        return tuple(_parse(args[0], part.strip(), path) for part in text.split(",") if part.strip())
    if annotation is bool:
        if text.lower() in ("true", "yes", "1", "on"):
            return True
        if text.lower() in ("false", "no", "0", "off"):
            return False
        raise ConfigError(f"{path}: {text!r} is neither true nor false")
    if annotation in (int, float, str):
        try:
            return annotation(text)
        except ValueError as error:
            raise ConfigError(f"{path}: {text!r} is no {annotation.__name__}") from error
    raise ConfigError(f"{path}: a field of type {annotation} cannot be set from text")
