"""What is no picture is refused before anything runs; every picture, however small, goes through."""

import pytest
import torch

import facerestore as fr
from facerestore.core.errors import RangeError, ShapeError
from facerestore.core.state import RestorationState
from facerestore.recipes import get
from facerestore.recipes.catalog import RECIPES
from facerestore.weights.store import WeightStore


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def with_one(value: float) -> torch.Tensor:
    pictures = random(1, 3, 64, 64)
    pictures[0, 1, 2, 3] = value
    return pictures


@pytest.fixture(scope="module")
def pipe() -> fr.Pipeline:
    return get("osdface").tiny().build(device="cpu", dtype="fp32")


@pytest.mark.parametrize(
    ("pictures", "error", "words"),
    [
        (random(1, 1, 64, 64), ShapeError, r"\(B,3,H,W\), got shape \(1, 1, 64, 64\)\. Repeat grey"),
        (random(1, 4, 64, 64), ShapeError, r"got shape \(1, 4, 64, 64\)\. .*split alpha off"),
        (random(3, 64, 64), ShapeError, r"got shape \(3, 64, 64\)"),
        (random(1, 3, 0, 64), ShapeError, "at least one pixel"),
        (255 * random(1, 3, 64, 64), RangeError, r"in \[0,1\], got .* to 25\d; divide by 255"),
        (2 * random(1, 3, 64, 64) - 1, RangeError, r"got -\d.*map -1 to 1 by \(x \+ 1\) / 2"),
        (with_one(1.2), RangeError, r"to 1\.2; clamp"),
        (with_one(float("nan")), RangeError, "expected finite values .* nan"),
        (with_one(float("-inf")), RangeError, "expected finite values .* -inf"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), RangeError, "divide by 255"),
    ],
)
def test_what_is_no_picture_is_refused_before_anything_runs(
    pictures: torch.Tensor, error: type[Exception], words: str, pipe: fr.Pipeline
) -> None:
    """By the pipeline and by the state that every stage starts from."""
    with pytest.raises(error, match=words):
        pipe.restore_aligned(pictures)
    with pytest.raises(error, match=words):
        RestorationState.start(pictures)


@pytest.mark.parametrize("name", RECIPES)
def test_every_size_and_every_float_goes_through_every_recipe(name: str) -> None:
    stage = get(name).tiny().stage.build(WeightStore()).place(torch.device("cpu"), "fp32")

    def restored(pictures: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return stage(RestorationState.start(pictures)).image

    for height, width in ((37, 50), (9, 8), (1, 1), (1, 40)):
        out = restored(random(1, 3, height, width))
        assert out.shape == (1, 3, height, width) and bool(out.isfinite().all())
    assert restored(random(0, 3, 64, 64)).shape == (0, 3, 64, 64)
    exact = random(1, 3, 24, 24).half()
    for other in (exact, exact.double()):
        assert torch.equal(restored(other), restored(exact.float()))
