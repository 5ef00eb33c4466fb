"""Restore degraded faces.

    import facerestore as fr
    pipe = fr.load("lite")
    result = pipe.restore("family.jpg")

Importing this package loads no torch: each public name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facerestore.batch import Summary as Summary
    from facerestore.batch import restore_folder as restore_folder
    from facerestore.core.errors import FaceRestoreError as FaceRestoreError
    from facerestore.imaging.photo import Photo as Photo
    from facerestore.imaging.read import read_image as read_image
    from facerestore.imaging.write import write_image as write_image
    from facerestore.pipeline import Pipeline as Pipeline
    from facerestore.recipes import Recipe as Recipe
    from facerestore.recipes import list_recipes as list_recipes
    from facerestore.recipes import load as load
    from facerestore.restoration import FaceResult as FaceResult
    from facerestore.restoration import Failure as Failure
    from facerestore.restoration import Restoration as Restoration
    from facerestore.weights.store import WeightStore as WeightStore

__version__ = "0.1.0"

_EXPORTS = {
    "FaceRestoreError": "facerestore.core.errors",
    "FaceResult": "facerestore.restoration",
    "Failure": "facerestore.restoration",
    "Photo": "facerestore.imaging.photo",
    "Pipeline": "facerestore.pipeline",
    "Recipe": "facerestore.recipes",
    "Restoration": "facerestore.restoration",
    "Summary": "facerestore.batch",
    "WeightStore": "facerestore.weights.store",
    "list_recipes": "facerestore.recipes",
    "load": "facerestore.recipes",
    "read_image": "facerestore.imaging.read",
    "restore_folder": "facerestore.batch",
    "write_image": "facerestore.imaging.write",
}
_PACKAGES = (
    "data",
    "degradations",
    "evaluation",
    "faces",
    "imaging",
    "losses",
    "metrics",
    "recipes",
    "stages",
    "training",
)

__all__ = [*sorted(_EXPORTS), *_PACKAGES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"facerestore.{name}")
    raise AttributeError(f"module 'facerestore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
