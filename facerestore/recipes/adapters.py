"""Adapters of the user's own, put behind those of a recipe."""

import re
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from facerestore.core.errors import ConfigError, WeightsNotFound
from facerestore.recipes.recipe import Recipe
from facerestore.stages.base import StageConfig
from facerestore.stages.compose import Chain
from facerestore.weights.spec import PEFT_CONFIG, manifest, remote
from facerestore.weights.store import OWN

_FIELD = "adapters"


def with_adapters(recipe: Recipe, adapters: Sequence[str | Path]) -> tuple[Recipe, dict[str, Path]]:
    """Give the last stage that takes adapters these ones more, in their order.

    Args:
        recipe: any.
        adapters: files and PEFT folders, and names of the manifest; where something is both, the name is
            meant, and `./` before it makes it a path.

    Returns:
        The recipe, and by the names `own/1-STEM` that it has for them now, the paths.

    Raises:
        ConfigError: if no stage takes adapters, or a name is that of another weight.
        WeightsNotFound: if there is neither such a file or PEFT folder nor a weight of that name.
    """
    if isinstance(adapters, str):
        raise ConfigError(f"adapters is a list of paths, got the text {adapters!r}; write [{adapters!r}]")
    if not adapters:
        return recipe, {}
    names: list[str] = []
    paths: dict[str, Path] = {}
    for number, adapter in enumerate(adapters, start=1):
        name = _known(adapter)
        if name is None:
            path = _path(adapter)
            stem = re.sub(r"[^\w.-]", "_", path.stem or path.resolve().stem)
            name = f"{OWN}{number}-{stem}"
            paths[name] = path
        names.append(name)
    stage = _with_more(recipe.stage, tuple(names))
    if stage is None:
        raise ConfigError(
            f"no stage of {recipe.name} takes adapters; put one that does behind it: {recipe.name}+zimage"
        )
    return replace(recipe, stage=stage), paths


def _known(adapter: str | Path) -> str | None:
    """The name, if it is one of the manifests."""
    spec = next((spec for spec in (*manifest(), *remote()) if spec.name == str(adapter)), None)
    if spec is None or isinstance(adapter, Path):
        return None
    if not spec.is_adapter:
        raise ConfigError(f"{spec.name} is no adapter but {spec.net}")
    return spec.name


def _path(adapter: str | Path) -> Path:
    path = Path(adapter).expanduser()
    if not path.is_file() and not (path / PEFT_CONFIG).is_file():
        raise WeightsNotFound(
            f"there is no adapter {str(adapter)!r}: no file, no PEFT folder (with {PEFT_CONFIG}), and no "
            "weight of that name; correct the path"
        )
    return path


def _with_more(stage: StageConfig, names: tuple[str, ...]) -> StageConfig | None:
    """The stage with more adapters; of a chain, the last of its stages that takes any. None if none does."""
    if isinstance(stage, Chain.Config):
        for index in reversed(range(len(stage.stages))):
            changed = _with_more(stage.stages[index], names)
            if changed is not None:
                return Chain.Config(stages=(*stage.stages[:index], changed, *stage.stages[index + 1 :]))
        return None
    if _FIELD not in {field.name for field in fields(stage)}:
        return None
    changes: dict[str, Any] = {_FIELD: (*getattr(stage, _FIELD), *names)}
    return replace(stage, **changes)
