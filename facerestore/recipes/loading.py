"""From a name to a pipeline."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from facerestore.core.offload import Offload
from facerestore.core.precision import DtypeName
from facerestore.pipeline import Pipeline
from facerestore.recipes.adapters import with_adapters
from facerestore.recipes.catalog import get
from facerestore.recipes.recipe import Recipe
from facerestore.weights.names import resolve
from facerestore.weights.store import WeightStore


def load(
    recipe: str | Recipe = "lite",
    *,
    device: str = "auto",
    dtype: DtypeName = "auto",
    offload: Offload | Literal["auto"] = "auto",
    batch_size: int | Literal["auto"] = "auto",
    weights: Mapping[str, str | Path] | None = None,
    adapters: Sequence[str | Path] = (),
    settings: Mapping[str, Any] | None = None,
    compiled: bool = False,
) -> Pipeline:
    """Build the pipeline of a recipe.

    Args:
        recipe: a name (see `list_recipes`) or a `Recipe`.
        device: `auto | cpu | cuda[:N] | mps`.
        dtype: `auto | fp32 | bf16 | fp16`; `auto` takes the measured best of each network on the device.
        offload: what lies on the device when. `none`: everything, always; `stages`: a stage while it runs;
            `model`: a network while it runs. On a CPU both of the latter let a stage go after it ran, and
            read it again for the next picture. `auto` takes the first that fits into the free memory.
        batch_size: faces per forward call; `auto` takes the measured best.
        weights: your own files, as their authors publish them, by the weight's name, a short one, or the
            group that lies in one folder: `{"base": "path/to/sd21", "vre": "associate_2.ckpt"}`; see
            `facerestore.weights.names`.
        adapters: your own adapters, files or PEFT folders, and names of weights that are adapters: merged
            one after the other behind those of the last stage that takes any.
        settings: fields of the recipe by path, such as `{"stage.stages.0.entry_px": 128}`.
        compiled: whether networks are compiled by `torch.compile` when they first run: minutes once, for each
            size of picture; on CUDA they then run as graphs.

    Raises:
        ConfigError: if a name or a setting is unknown, or no stage takes adapters.
        WeightsError: if a weight is missing, damaged, or does not fit.
        DeviceError: if the device is not there.
    """
    chosen = get(recipe) if isinstance(recipe, str) else recipe
    for path, value in (settings or {}).items():
        chosen = chosen.override(path, str(value))
    chosen, own = with_adapters(chosen, adapters)
    files = resolve(weights or {}, chosen.weights())
    return chosen.build(
        WeightStore(paths=files | own),
        device=device,
        dtype=dtype,
        batch_size=None if batch_size == "auto" else batch_size,
        offload=offload,
        compiled=compiled,
    )
