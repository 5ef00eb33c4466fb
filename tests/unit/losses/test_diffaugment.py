"""What a discriminator sees in place of pictures: recoloured, moved, cut."""

from typing import Any

import pytest
import torch

from facerestore.core.errors import ConfigError, ShapeError
from facerestore.losses.diffaugment import DiffAugment, augment

NOTHING = DiffAugment(brightness=0, saturation=0, contrast=0, translation=0, cutout=0)


def images(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 20, 28, generator=torch.Generator().manual_seed(0))


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def only(**settings: float) -> DiffAugment:
    off = {"brightness": 0.0, "saturation": 0.0, "contrast": 0.0, "translation": 0.0, "cutout": 0.0}
    return DiffAugment(**(off | settings))


def test_nothing_is_done_where_nothing_is_asked_for() -> None:
    torch.testing.assert_close(augment(images(), generators(1, 2, 3), NOTHING), images(), atol=1e-6, rtol=0)


def test_a_picture_depends_on_its_generator_and_on_nothing_beside_it() -> None:
    together = augment(images(), generators(5, 6, 7))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    alone = [augment(images()[i : i + 1], generators(5 + i)) for i in range(3)]
    assert torch.equal(torch.cat(alone), together)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(augment(images(), generators(5, 6, 8))[2], together[2])


def test_brightness_moves_all_pixels_alike_up_to_a_quarter() -> None:
    added = augment(images(1).expand(200, 3, 20, 28), generators(*range(200)), only(brightness=0.25))
    shifts = (added - images(1)).flatten(1)
    assert shifts.std(1).max() < 1e-6
    assert -0.25 < shifts.min() < -0.22 and 0.22 < shifts.max() < 0.25


def test_saturation_keeps_grey_and_contrast_keeps_the_mean() -> None:
    saturated = augment(images(), generators(1, 2, 3), only(saturation=1.0))
    torch.testing.assert_close(saturated.mean(1), images().mean(1))
    assert (saturated - images()).abs().max() > 0.05
    contrasted = augment(images(), generators(1, 2, 3), only(contrast=0.5))
    torch.testing.assert_close(contrasted.mean((1, 2, 3)), images().mean((1, 2, 3)))
    factors = contrasted.flatten(1).std(1) / images().flatten(1).std(1)
    assert bool(((factors > 0.5) & (factors < 1.5) & ((factors - 1).abs() > 0.01)).all())


def test_what_is_moved_in_is_grey_and_the_rest_is_the_picture() -> None:
    shifts = set()
    for seed in range(40):
        (moved,) = augment(images(1), generators(seed), only(translation=0.125))
        grey = (moved == 0.5).all(0)
        rows, columns = (~grey).any(1), (~grey).any(0)
        top, left = int(rows.int().argmax()), int(columns.int().argmax())
        tall, wide = int(rows.sum()), int(columns.sum())
        assert 20 - tall <= 3 and 28 - wide <= 4  # 0.125 of the sides, rounded
        from_row, from_column = (0 if top else 20 - tall), (0 if left else 28 - wide)
        source = images(1)[0][:, from_row : from_row + tall, from_column : from_column + wide]
        kept = moved[:, top : top + tall, left : left + wide]
        torch.testing.assert_close(kept, source, atol=1e-6, rtol=0)
        shifts.add((from_row - top, from_column - left))
    assert len(shifts) > 15 and {row for row, _ in shifts} == set(range(-3, 4))


def test_what_is_cut_is_a_grey_rectangle_of_half_the_sides_or_less_at_the_border() -> None:
    for seed in range(20):
        (cut,) = augment(images(1), generators(seed), only(cutout=0.5))
        grey = (cut == 0.5).all(0)
        rows, columns = grey.any(1), grey.any(0)
        assert torch.equal(grey, rows[:, None] & columns[None])
        assert 5 <= rows.sum() <= 10 and 7 <= columns.sum() <= 14
        torch.testing.assert_close(cut[:, ~grey], images(1)[0][:, ~grey], atol=1e-6, rtol=0)


def test_gradients_reach_what_is_left() -> None:
    pictures = images(2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: augment(x, generators(1, 2)), pictures, fast_mode=True)
    augment(pictures, generators(1, 2), only(cutout=0.5)).sum().backward()
    assert pictures.grad is not None and set(pictures.grad.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("settings", [{"brightness": -0.1}, {"cutout": 1.5}, {"translation": 2.0}])
def test_impossible_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="DiffAugment"):
        DiffAugment(**settings)


def test_other_shapes_and_too_few_generators_are_refused() -> None:
    with pytest.raises(ShapeError, match="images"):
        augment(torch.zeros(1, 1, 8, 8), generators(1))
    with pytest.raises(ShapeError, match="one generator for each of 3"):
        augment(images(), generators(1, 2))
