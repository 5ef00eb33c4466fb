"""Small generated pictures, each with a content of its own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Draw = Callable[..., Path]


def colours(seed: int, width: int = 160, height: int = 160) -> Image.Image:
    """Smooth colours without symmetry that no other seed gives."""
    rough = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), np.uint8)
    return Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def draw() -> Draw:
    """Writes such a picture: (path, seed, width, height, mode)."""

    def write(path: Path, seed: int, width: int = 160, height: int = 160, mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        colours(seed, width, height).convert(mode).save(path)
        return path

    return write
