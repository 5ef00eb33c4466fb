"""What holds for every order, resume, number of processes and batch."""

from collections import Counter
from itertools import islice
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from facerestore.core.errors import ConfigError
from facerestore.data import Augment, Order, augmented, batches, positions

seeds = st.integers(0, 2**31)
counts = st.integers(1, 40)


class Numbers:
    """Small pictures whose pixels tell their number and place, each with a box."""

    def __init__(self, count: int, side: int = 12) -> None:
        self.count, self.side = count, side

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        ramp = torch.linspace(0, 1, 3 * self.side * self.side).view(3, self.side, self.side)
        box = torch.tensor([1.0, 2.0, 5.0, 7.0])
        return {
            "key": f"{index}.png",
            "hq": (ramp + index) / (self.count + 1),
            "boxes": {"left_eye": box, "right_eye": box + 4, "mouth": box + 2},
        }


def stream(dataset: Numbers, order: Order, steps: int, **options: Any) -> list[dict[str, Any]]:
    options = {"batch": 1, "workers": 0} | options
    return [dict(batch) for batch in islice(batches(dataset, order, **options), steps)]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@given(counts, seeds, st.integers(0, 10**6))
def test_every_epoch_is_a_permutation(count: int, seed: int, epoch: int) -> None:
    order = Order(count, seed)
    seen = [order.index(epoch * count + place) for place in range(count)]
    assert sorted(seen) == list(range(count))


@given(counts, seeds, st.integers(0, 200))
def test_an_index_is_a_function_of_seed_and_position_alone(count: int, seed: int, position: int) -> None:
    walked = Order(count, seed)
    for place in range(position):
        walked.index(place)
    fresh = Order(count, seed)
    assert walked.index(position) == fresh.index(position)
    assert walked.sample_seed(position) == fresh.sample_seed(position)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30).filter(sum), seeds)
def test_weighted_entries_come_as_often_as_they_weigh(weights: list[float], seed: int) -> None:
    count = len(weights)
    order = Order(count, seed, weights=weights)
    seen = Counter(order.index(place) for place in range(count))
    for index, weight in enumerate(weights):
        expected = count * weight / sum(weights)
        assert expected - 1 - 1e-6 < seen[index] < expected + 1 + 1e-6


def test_over_many_epochs_the_mean_is_the_weight() -> None:
    order = Order(3, 7, weights=[1, 2, 5])
    seen = Counter(order.index(place) for place in range(3 * 4000))
    assert [seen[index] / 12_000 for index in range(3)] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.01)


def test_epochs_and_seeds_differ_and_a_plain_order_does_not_mix() -> None:
    def epoch(order: Order, number: int) -> list[int]:
        return [order.index(number * 50 + place) for place in range(50)]

    order = Order(50, 1)
    assert epoch(order, 0) != epoch(order, 1)
    assert epoch(order, 0) != epoch(Order(50, 2), 0)
    assert epoch(Order(50, 1, shuffle=False), 3) == list(range(50))
    assert len({order.sample_seed(position) for position in range(1000)}) == 1000


@given(counts, seeds, st.integers(1, 4), st.integers(1, 3), st.integers(0, 30))
def test_a_resume_at_any_position_goes_on_with_the_same_stream(
    count: int, seed: int, batch: int, world: int, steps: int
) -> None:
    dataset, order = Numbers(count), Order(count, seed)
    options = {"batch": batch, "world": world, "rank": world - 1, "augment": Augment(zoom=1.5)}
    whole = stream(dataset, order, steps + 3, **options)
    start = whole[steps - 1]["position"] if steps else 0
    assert start == steps * batch * world
    resumed = stream(dataset, Order(count, seed), 3, start=start, **options)
    assert all(same(one, other) for one, other in zip(whole[steps:], resumed, strict=True))


@given(counts, seeds, st.integers(1, 3), st.sampled_from([1, 2, 3]), st.integers(0, 50))
def test_n_processes_see_what_one_sees_with_n_times_the_batch(
    count: int, seed: int, batch: int, world: int, start: int
) -> None:
    dataset, order = Numbers(count), Order(count, seed, weights=[1 + index % 3 for index in range(count)])
    alone = stream(dataset, order, 4, batch=batch * world, start=start)
    ranks = [
        stream(dataset, order, 4, batch=batch, start=start, rank=rank, world=world) for rank in range(world)
    ]
    for step, whole in enumerate(alone):
        parts = [rank[step] for rank in ranks]
        assert sum((part["key"] for part in parts), ()) == whole["key"]
        assert sum((part["seed"] for part in parts), ()) == whole["seed"]
        assert torch.equal(torch.cat([part["hq"] for part in parts]), whole["hq"])
        assert {part["position"] for part in parts} == {whole["position"]}


@given(counts, seeds, st.integers(2, 5), st.sampled_from([0, 1, 3]))
def test_a_batch_is_its_samples_one_by_one_whatever_the_threads(
    count: int, seed: int, batch: int, workers: int
) -> None:
    dataset, order, augment = Numbers(count), Order(count, seed), Augment(zoom=2)
    (many,) = stream(dataset, order, 1, batch=batch, augment=augment, workers=workers)
    for place, one in enumerate(stream(dataset, order, batch, augment=augment)):
        assert one["key"] == many["key"][place : place + 1]
        assert torch.equal(one["hq"][0], many["hq"][place])
        for part, boxes in one["boxes"].items():
            assert torch.equal(boxes[0], many["boxes"][part][place])


@given(seeds)
def test_mirroring_twice_is_nothing_and_boxes_go_along(seed: int) -> None:
    sample, flip = Numbers(3)[1], Augment(flip=1)
    once = augmented(sample, flip, seed)
    assert torch.equal(once["hq"], sample["hq"].flip(2))
    assert once["boxes"]["left_eye"].tolist() == [3, 6, 7, 11]  # the right one before, at 5 to 9 of 12
    assert same(dict(augmented(once, flip, seed)), sample)


@given(seeds, st.floats(1, 3))
def test_a_box_holds_the_same_pixels_after_a_zoom(seed: int, zoom: float) -> None:
    """A bright square on black stays inside its box."""
    image = torch.zeros(3, 64, 64)
    image[:, 20:36, 24:40] = 1
    sample = {"key": "a", "hq": image, "boxes": {"mouth": torch.tensor([24.0, 20.0, 40.0, 36.0])}}
    changed = augmented(sample, Augment(flip=0.5, zoom=zoom), seed)
    assert changed["hq"].shape == image.shape
    x0, y0, x1, y1 = changed["boxes"]["mouth"].tolist()
    assert 16 - 1e-4 <= x1 - x0 <= 16 * zoom * 1.05
    rows, columns = torch.nonzero(changed["hq"][0] > 0.5, as_tuple=True)
    if not len(rows):
        assert min(x1, 64) - max(x0, 0) < 1 or min(y1, 64) - max(y0, 0) < 1  # the window missed it
        return
    assert rows.min() == pytest.approx(max(y0, 0), abs=1)
    assert rows.max() + 1 == pytest.approx(min(y1, 64), abs=1)
    assert columns.min() == pytest.approx(max(x0, 0), abs=1)
    assert columns.max() + 1 == pytest.approx(min(x1, 64), abs=1)


@pytest.mark.parametrize(
    "bad",
    [
        {"count": 0, "seed": 0},
        {"count": 2, "seed": 0, "weights": [1.0]},
        {"count": 2, "seed": 0, "weights": [0.0, 0.0]},
        {"count": 2, "seed": 0, "weights": [1.0, -1.0]},
        {"count": 2, "seed": 0, "weights": [1.0, float("nan")]},
        {"count": 2, "seed": 0, "weights": [1.0, 1.0], "shuffle": False},
    ],
)
def test_orders_without_sense_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Order(**bad)


@pytest.mark.parametrize("bad", [(-1, 1, 0, 1), (0, 0, 0, 1), (0, 1, 1, 1), (0, 1, -1, 2)])
def test_steps_without_sense_are_refused(bad: tuple[int, int, int, int]) -> None:
    with pytest.raises(ConfigError):
        positions(*bad)
