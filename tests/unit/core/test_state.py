"""The travelling state, and the check at every boundary."""

import pytest
import torch

from facerestore.core.errors import RangeError, ShapeError
from facerestore.core.state import RestorationState, check_images


def test_state_is_never_rewritten() -> None:
    lq = torch.rand(2, 3, 8, 8)
    start = RestorationState.start(lq, 5)
    later = start.with_image(lq * 0.5).keep("half").with_fact("entry_px", (128, 256))
    assert start.image is lq and not start.kept and not start.facts
    assert later.lq is lq and later.seeds == (5, 5)
    assert torch.equal(later.kept["half"], lq * 0.5)
    assert later.facts == {"entry_px": (128, 256)}
    with pytest.raises(TypeError):
        later.kept["half"] = lq  # type: ignore[index]
    with pytest.raises(ShapeError):
        later.with_fact("x", (1.0,))


def test_seeds_are_one_for_each() -> None:
    lq = torch.rand(2, 3, 8, 8)
    assert RestorationState.start(lq, (1, 2)).seeds == (1, 2)
    with pytest.raises(ShapeError):
        RestorationState.start(lq, (1, 2, 3))


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 4, 8, 8), (1, 3, 0, 8)])
def test_shapes_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as caught:
        check_images(torch.zeros(shape))
    assert caught.value.actual == shape


@pytest.mark.parametrize(
    ("bad", "remedy"),
    [
        (-0.1, "clamp"),
        (1.1, "clamp"),
        (-1.0, r"\(x \+ 1\) / 2"),
        (255.0, "divide by 255"),
        (float("nan"), "went wrong"),
        (float("inf"), "went wrong"),
    ],
)
def test_values_are_checked_and_the_remedy_is_said(bad: float, remedy: str) -> None:
    images = torch.full((1, 3, 4, 4), 0.5)
    images[0, 1, 2, 3] = bad
    with pytest.raises(RangeError, match=remedy):
        check_images(images)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_floats_of_any_width_start_as_float32(dtype: torch.dtype) -> None:
    lq = torch.rand(1, 3, 4, 4)
    start = RestorationState.start(lq.to(dtype))
    assert start.lq is start.image and start.lq.dtype == torch.float32
    torch.testing.assert_close(start.lq, lq, atol=1e-3, rtol=0)


def test_bytes_are_refused() -> None:
    with pytest.raises(RangeError, match="divide by 255"):
        check_images(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
