"""From a name to a pipeline."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from facerestore.core.errors import ConfigError
from facerestore.core.precision import DtypeName
from facerestore.pipeline import Pipeline
from facerestore.recipes.catalog import get
from facerestore.recipes.recipe import Recipe
from facerestore.weights.store import WeightStore


def load(
    recipe: str | Recipe = "lite",
    *,
    device: str = "auto",
    dtype: DtypeName = "auto",
    offload: Literal["auto", "none"] = "auto",
    batch_size: int | Literal["auto"] = "auto",
    weights: Mapping[str, str | Path] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Pipeline:
    """Build the pipeline of a recipe.

    Args:
        recipe: a name (see `list_recipes`) or a `Recipe`.
        device: `auto | cpu | cuda[:N] | mps`.
        dtype: `auto | fp32 | bf16 | fp16`; `auto` takes the measured best of each network on the device.
        offload: `auto` or `none`; today's networks are small enough to stay on the device together.
        batch_size: faces per forward call; `auto` takes the measured best.
        weights: your own files by weight name, such as `{"realesrgan-x4plus": "mine.safetensors"}`.
        settings: fields of the recipe by path, such as `{"stage.stages.0.entry_px": 128}`.

    Raises:
        ConfigError: if a name or a setting is unknown.
        WeightsError: if a weight is missing, damaged, or does not fit.
        DeviceError: if the device is not there.
    """
    if offload not in ("auto", "none"):
        raise ConfigError(f"offload is 'auto' or 'none' for the recipes that there are, got {offload!r}")
    chosen = get(recipe) if isinstance(recipe, str) else recipe
    for path, value in (settings or {}).items():
        chosen = chosen.override(path, str(value))
    return chosen.build(
        WeightStore(paths=weights),
        device=device,
        dtype=dtype,
        batch_size=None if batch_size == "auto" else batch_size,
    )
