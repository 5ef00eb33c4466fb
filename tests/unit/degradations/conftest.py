"""Pictures to degrade."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import REPO


@pytest.fixture(scope="package")
def portrait() -> torch.Tensor:
    """A sharp face, (1,3,192,192) float32 in [0,1]."""
    with Image.open(REPO / "tests" / "data" / "faces" / "grace_hopper.jpg") as image:
        pixels = np.array(image.convert("RGB").resize((192, 192), Image.Resampling.LANCZOS))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
