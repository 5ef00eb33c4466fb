"""A difference counts where it is beyond chance, in the direction that is better."""

import numpy as np
import pytest

from facerestore.core.errors import ConfigError
from facerestore.evaluation import Row, compare


def rows(values: "list[float]", **more: str) -> list[Row]:
    return [
        Row(key=str(n), subset="", sha256=more, values={"psnr": v, "niqe": v}) for n, v in enumerate(values)
    ]


DIRECTIONS = {"psnr": "higher", "niqe": "lower"}


def test_a_small_steady_gain_is_found_and_the_direction_decides() -> None:
    random = np.random.default_rng(1)
    first = random.normal(25, 3, 40)
    second = first + random.normal(0.2, 0.1, 40)  # far below the spread of the pictures
    found = {each.metric: each for each in compare(rows(list(first)), rows(list(second)), DIRECTIONS)}
    psnr = found["psnr"]
    assert psnr.better == "second" and found["niqe"].better == "first"
    assert psnr.low < psnr.difference < psnr.high and psnr.low > 0
    assert psnr.difference == pytest.approx(float((second - first).mean()))
    assert psnr.p_value == 1 / 10_000, "no random signs are as good"
    assert psnr.p_adjusted == 2 * psnr.p_value


def test_noise_is_none() -> None:
    random = np.random.default_rng(2)
    first = random.normal(25, 1, 40)
    found = compare(rows(list(first)), rows(list(first + random.normal(0, 1, 40))), DIRECTIONS)
    assert {each.better for each in found} == {"neither"}
    assert all(each.low < 0 < each.high for each in found)


def test_the_p_value_is_uniform_where_nothing_differs() -> None:
    """Of 100 comparisons of nothing, about five are below 5 %."""
    random = np.random.default_rng(3)
    below = 0
    for _ in range(100):
        pairs = random.normal(0, 1, (2, 12))
        found = compare(rows(list(pairs[0])), rows(list(pairs[1])), {"psnr": "higher"})
        below += found[0].p_value < 0.05
    assert 1 <= below <= 11


def test_the_same_run_twice_is_no_difference() -> None:
    same = rows([1.0, 2.0, 3.0, 4.0])
    found = compare(same, same, {"psnr": "higher"})
    assert found[0].difference == 0 and found[0].p_value == 1 and found[0].better == "neither"


def test_only_what_both_have_is_compared() -> None:
    found = compare(rows([1.0, 2.0, 3.0, 4.0]), rows([2.0, 3.0, 4.0]), {"psnr": "higher", "ssim": "higher"})
    assert [each.metric for each in found] == ["psnr"] and found[0].pairs == 3


def test_other_pictures_under_the_same_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="share 2 pictures"):
        compare(rows([1.0, 2.0]), rows([1.0, 2.0]), DIRECTIONS)
    with pytest.raises(ConfigError, match="different lq"):
        compare(rows([1.0, 2.0, 3.0], lq="a"), rows([1.0, 2.0, 3.0], lq="b"), DIRECTIONS)
