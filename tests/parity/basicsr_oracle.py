"""The one door to basicsr 1.4.2, with which the degradations are compared.

Its package cannot be imported beside a current torchvision, which lost `transforms.functional_tensor`, and
its `__init__` imports everything it has. So its single files are run, with that module put in its place.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest import mock

HOW = "pip install --no-deps --no-build-isolation basicsr==1.4.2 (it cannot be built on Python 3.13)"


def load() -> SimpleNamespace:
    """The modules `degradations`, `diffjpeg` and `img_process_util` of basicsr.

    Raises:
        ImportError: with the reason, if basicsr or what it needs is not installed.
    """
    import numpy as np
    from torchvision.transforms import functional

    spec = importlib.util.find_spec("basicsr")  # finds it without running it
    if spec is None or spec.origin is None:
        raise ImportError(f"basicsr is not installed: {HOW}")
    folder = Path(spec.origin).parent
    stand_in = ModuleType("torchvision.transforms.functional_tensor")
    stand_in.__dict__["rgb_to_grayscale"] = functional.rgb_to_grayscale
    warnings_of_numpy = np.geterr()  # degradations.py switches some off
    try:
        with mock.patch.dict(sys.modules, {stand_in.__name__: stand_in}):
            return SimpleNamespace(
                degradations=_run(folder / "data" / "degradations.py"),
                diffjpeg=_run(folder / "utils" / "diffjpeg.py"),
                img_process_util=_run(folder / "utils" / "img_process_util.py"),
            )
    finally:
        np.seterr(**warnings_of_numpy)


def load_metrics() -> SimpleNamespace:
    """The modules `niqe`, `psnr_ssim` and `color_util` of basicsr, its packages replaced by empty ones.

    Raises:
        ImportError: with the reason, if basicsr or what it needs is not installed.
    """
    spec = importlib.util.find_spec("basicsr")
    if spec is None or spec.origin is None:
        raise ImportError(f"basicsr is not installed: {HOW}")
    folder = Path(spec.origin).parent
    packages: dict[str, ModuleType] = {}
    for name in ("basicsr", "basicsr.utils", "basicsr.metrics"):
        packages[name] = ModuleType(name)
        packages[name].__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
    with mock.patch.dict(sys.modules, packages):
        colours = importlib.import_module("basicsr.utils.color_util")
        packages["basicsr.utils"].__dict__["bgr2ycbcr"] = colours.bgr2ycbcr
        return SimpleNamespace(
            color_util=colours,
            niqe=importlib.import_module("basicsr.metrics.niqe"),
            psnr_ssim=importlib.import_module("basicsr.metrics.psnr_ssim"),
        )


def _run(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"basicsr_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
