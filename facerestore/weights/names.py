"""What users may call the weights of a recipe, where they give paths of their own.

The KEY of `--weights KEY=PATH`, and of `load(weights={KEY: PATH})`, is one of these:

* the full name of a weight: `sd21-base/unet`;
* its last part, or its short name in the manifest: `lora`, `vre`. PATH is the file or folder;
* a group, which is the part before the slash: `sd21-base`, `osdface`. PATH is the folder in which its files
  lie as they are published, such as `unet/` and `vae/`, or as they are called below a weights folder;
* `base`: the group that has the recipe's UNet or transformer.

What is named alone goes before what its group's folder holds.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from facerestore.core.errors import ConfigError, WeightsNotFound
from facerestore.weights.spec import WeightSpec, manifest, remote

BASE = "base"
_BASE_PARTS = ("unet", "transformer")


def resolve(given: Mapping[str, str | Path], names: Iterable[str]) -> dict[str, Path]:
    """Find out which weights the paths of a user are for.

    Args:
        given: paths by key; see the module.
        names: full names of the weights that a recipe needs; what is in no manifest has no other name.

    Returns:
        The path of each weight by its full name. Weights that no key speaks of are not in it, nor are those
        that their group's folder lacks because nobody publishes them there: both are searched as usual.

    Raises:
        ConfigError: if a key names nothing that the recipe needs, or several things, or if two name the same.
        WeightsNotFound: if a path is not what it should be, or a folder lacks what it is published with.
    """
    wanted = set(names)
    specs = {spec.name: spec for spec in (*manifest(), *remote()) if spec.name in wanted}
    known = _names_of_groups(specs.values()) | _names_of_weights(specs.values())
    keys: dict[str, str] = {}
    for key in given:
        name = _meant(key, known, specs)
        if name in keys:
            raise ConfigError(f"{name} is given twice, as {keys[name]!r} and as {key!r}")
        keys[name] = key
    paths = {name: Path(given[key]).expanduser() for name, key in keys.items()}
    files = {name: path for name, path in paths.items() if name in specs}
    for name, path in files.items():
        specs[name].require_at(path, keys[name])
    for group, folder in paths.items():
        if group not in specs:
            sought = [spec for spec in specs.values() if _group(spec) == group and spec.name not in files]
            files |= _found_in(folder, sought, keys[group])
    return files


def _names_of_weights(specs: Iterable[WeightSpec]) -> dict[str, list[str]]:
    """Full names by everything that weights may be called; only one has the full name."""
    known: dict[str, list[str]] = {}
    for spec in specs:
        for key in {_last_part(spec), spec.short} - {""}:
            known.setdefault(key, []).append(spec.name)
    return known | {spec.name: [spec.name] for spec in specs}


def _names_of_groups(specs: Iterable[WeightSpec]) -> dict[str, list[str]]:
    """The groups by their names, and under `base` all that have a base model."""
    groups = {_group(spec): [_group(spec)] for spec in specs if _group(spec)}
    bases = dict.fromkeys(_group(spec) for spec in specs if _last_part(spec) in _BASE_PARTS)
    return groups | ({BASE: list(bases)} if bases else {})


def _group(spec: WeightSpec) -> str:
    return spec.name.rpartition("/")[0]


def _last_part(spec: WeightSpec) -> str:
    return spec.name.rpartition("/")[2]


def _meant(key: str, known: Mapping[str, list[str]], needed: Iterable[str]) -> str:
    """The weight or the group that a key names.

    Raises:
        ConfigError: if that is none, or several.
    """
    choices = known.get(key, [])
    if len(choices) > 1:
        raise ConfigError(f"{key!r} may be {' or '.join(choices)} here; say which")
    if not choices:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it needs {', '.join(needed)}"
        raise ConfigError(f"this recipe has no weight named {key!r}; {hint}")
    return choices[0]


def _found_in(folder: Path, sought: list[WeightSpec], key: str) -> dict[str, Path]:
    """The weights of a group that lie in a folder.

    Raises:
        WeightsNotFound: if one is missing that is published there, or all are.
    """
    if not folder.is_dir():
        raise WeightsNotFound(
            f"{folder}, given for {key!r}, is no folder; it should be the one that holds all"
        )
    found = {spec.name: path for spec in sought if (path := _place(spec, folder)) is not None}
    missing = [spec for spec in sought if spec.name not in found and (spec.published or not found)]
    if missing:
        lines = ", ".join(f"{_names(spec)[0]} ({spec.name})" for spec in missing)
        raise WeightsNotFound(
            f"{folder}, given for {key!r}, lacks {lines}; correct the path, or give what lies elsewhere alone"
        )
    return found


def _names(spec: WeightSpec) -> list[str]:
    """What a weight may be called in the folder of its group."""
    return [*filter(None, [spec.published]), *(PurePosixPath(place).name for place in spec.places)]


def _place(spec: WeightSpec, folder: Path) -> Path | None:
    return next((folder / name for name in _names(spec) if spec.is_at(folder / name)), None)
