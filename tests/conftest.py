"""What all tests share: processes that do not fight for cores, no network, small real pictures, pipelines."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

# Before torch is imported: pytest -n 2 runs as many processes as there are cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["FACERESTORE_OFFLINE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("FACERESTORE_WEIGHTS", None)

if TYPE_CHECKING:
    import torch

    from facerestore.pipeline import Pipeline

REPO = Path(__file__).parents[1]

# The same examples every time: what fails, fails for everybody.
hypothesis.settings.register_profile(
    "house", derandomize=True, deadline=None, max_examples=30, database=None, print_blob=True
)
hypothesis.settings.load_profile("house")


@pytest.fixture(scope="session")
def repo() -> Path:
    """Root of the checkout."""
    return REPO


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache is left alone: what is converted on first use lies in a folder of this run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def photos() -> Path:
    """Folder of the example photographs."""
    return REPO / "examples" / "photos"


@pytest.fixture(scope="session")
def aligned() -> Path:
    """Folder of the aligned example faces, 512 px."""
    return REPO / "examples" / "faces"


@pytest.fixture(scope="session")
def face(aligned: Path) -> "torch.Tensor":
    """A ruined, aligned face: (1,3,512,512) float32 in [0,1]."""
    return _tensor(aligned / "hopper_x8.png")


@pytest.fixture(scope="session")
def faces(aligned: Path) -> "torch.Tensor":
    """Every aligned example face: (6,3,512,512) float32 in [0,1]."""
    import torch

    return torch.cat([_tensor(path) for path in sorted(aligned.iterdir())])


@pytest.fixture(scope="session")
def tiny_pipeline() -> "Pipeline":
    """The default recipe with a tiny random restoring network, in float32; faces are found as ever."""
    from facerestore import recipes

    return recipes.get("lite").tiny().build(device="cpu", dtype="fp32")


@pytest.fixture(scope="session")
def lite() -> "Pipeline":
    """The default recipe as users load it, on the CPU."""
    from facerestore import recipes

    return recipes.load("lite", device="cpu")


def _tensor(path: Path) -> "torch.Tensor":
    import numpy as np
    import torch
    from PIL import Image

    pixels = np.array(Image.open(path).convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
