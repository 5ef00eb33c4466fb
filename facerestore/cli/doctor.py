"""`facerestore doctor`: what this machine can run, by trying it."""

import json
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from facerestore import __version__
from facerestore.cli.console import out, reports_errors, shown
from facerestore.core.errors import WeightsError, WeightsNotFound

if TYPE_CHECKING:
    from facerestore.weights.store import WeightStore

_PACKAGES = (
    "facerestore",
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "safetensors",
    "diffusers",
    "transformers",
)
_OPTIONAL_FORMATS = {".avif": "AVIF", ".heic": "HEIC", ".webp": "WebP", ".jp2": "JPEG 2000"}


@reports_errors
def doctor(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Versions, devices, dtypes that work, free memory and disk, and which recipes would run here."""
    facts = {
        "versions": _versions(),
        "devices": list(_devices()),
        "memory": _memory(),
        "disk": _disk(),
        "formats": _formats(),
        "weights are looked for in": _folders(),
        "recipes": _recipes(),
    }
    if as_json:
        out().print_json(json.dumps(facts))
        return
    for title, content in facts.items():
        out().print(title)
        for line in _lines(content):
            out().print(f"  {shown(line)}")


def _lines(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        yield from (f"{name}: {value}" for name, value in content.items())
    else:
        for entry in content:
            yield ", ".join(f"{k}: {v}" for k, v in entry.items()) if isinstance(entry, dict) else str(entry)


def _versions() -> dict[str, str]:
    found = {"facerestore": __version__, "python": platform.python_version(), "system": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _devices() -> Iterator[dict[str, str]]:
    import torch

    from facerestore.core.precision import cpu_has_fast_bf16

    bf16 = "in hardware" if cpu_has_fast_bf16() else "emulated, therefore slow; auto takes fp32"
    name = f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads, bf16 {bf16}"
    yield {"device": "cpu", "name": name, "dtypes": _dtypes("cpu")}
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = f"{properties.total_memory / 2**30:.0f} GiB"
        yield {
            "device": f"cuda:{index}",
            "name": f"{properties.name}, {memory}",
            "dtypes": _dtypes(f"cuda:{index}"),
        }
    if torch.backends.mps.is_available():
        yield {"device": "mps", "name": platform.processor() or "Apple", "dtypes": _dtypes("mps")}


def _dtypes(device: str) -> str:
    """Names of the dtypes that recipes may take here and in which a small convolution comes out right."""
    import torch

    from facerestore.core.errors import UnsupportedDtype
    from facerestore.core.precision import DTYPES, choose_layout

    image = torch.linspace(0, 1, 3 * 64, device=device).view(1, 3, 8, 8)
    kernel = torch.full((1, 3, 3, 3), 1 / 27, device=device)
    expected = torch.nn.functional.conv2d(image, kernel)
    working: list[str] = []
    for name, dtype in DTYPES.items():
        try:
            choose_layout("rrdbnet", torch.device(device), cast("Any", name))
            found = torch.nn.functional.conv2d(image.to(dtype), kernel.to(dtype)).float()
        except (RuntimeError, UnsupportedDtype):
            continue
        if torch.allclose(found, expected, atol=0.02):
            working.append(name)
    return " ".join(working)


def _memory() -> dict[str, str]:
    names = {"total": "SC_PHYS_PAGES", "free": "SC_AVPHYS_PAGES"}
    known = {what: name for what, name in names.items() if name in getattr(os, "sysconf_names", {})}
    page = os.sysconf("SC_PAGE_SIZE") if known else 0
    return {what: f"{os.sysconf(name) * page / 2**30:.1f} GiB" for what, name in known.items()}


def _disk() -> dict[str, str]:
    here = Path.cwd()
    return {f"free in {here}": f"{shutil.disk_usage(here).free / 2**30:.1f} GiB"}


def _formats() -> dict[str, str]:
    from PIL import Image

    Image.init()
    there = Image.registered_extensions()
    return {
        name: "can be read" if there.get(ending) in Image.OPEN else "not by this Pillow"
        for ending, name in _OPTIONAL_FORMATS.items()
    }


def _folders() -> list[str]:
    from facerestore.weights.store import WeightStore

    return [str(folder) for folder in WeightStore().folders()]


def _recipes() -> list[dict[str, str]]:
    from facerestore.core.precision import resolve_device
    from facerestore.recipes import get, list_recipes
    from facerestore.weights.store import WeightStore

    store, device = WeightStore(), resolve_device()
    rows: list[dict[str, str]] = []
    for info in list_recipes():
        recipe = get(info.name)
        plan = str(recipe.plan(store, device=device))
        rows.append(
            {"recipe": info.name, f"offload on {device}": plan, "here": _state(store, recipe.weights())}
        )
    return rows


def _state(store: "WeightStore", names: tuple[str, ...]) -> str:
    """Whether a recipe runs with the weights that are here, and else which are missing or damaged."""
    missing: list[str] = []
    for name in names:
        try:
            store.sha256(name)
        except WeightsNotFound:
            missing.append(name)
        except WeightsError as error:
            return f"does not run: {error}"
    return f"does not run, missing: {' '.join(missing)}" if missing else "runs here"
