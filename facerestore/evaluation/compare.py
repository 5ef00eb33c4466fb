"""Is one run better than another, or does it only look so? Paired over the pictures that both have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from facerestore.core.errors import ConfigError
from facerestore.evaluation.rows import Row

RESAMPLES = 9999
_AT_ONCE = 1 << 18
_LEAST = 3  # pairs from which anything is said


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One metric of two runs.

    Attributes:
        metric: its key.
        pairs: pictures that both runs have a number of.
        first: mean of the first run over these pairs.
        second: of the second.
        difference: second less first.
        low: lower end of the 95 % confidence interval of the difference.
        high: upper end.
        p_value: of a difference at least as large, if it did not matter which run a number is of.
        p_adjusted: the same, for having asked of several metrics at once (Holm).
        better: the run that is better beyond chance at 5 % (by `p_adjusted`), or neither.
    """

    metric: str
    pairs: int
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float = 1.0
    better: Literal["first", "second", "neither"] = "neither"


def compare(
    first: Sequence[Row], second: Sequence[Row], directions: Mapping[str, Literal["higher", "lower"]]
) -> list[Comparison]:
    """Compare two runs over the same pictures, metric by metric.

    The confidence interval is a bootstrap of the pairs (percentiles of the mean difference), the test one of
    random signs; both draw from a generator of their own, so that the answer repeats.

    Args:
        first: rows of a run.
        second: of another. Pictures belong together by their keys; those that one run lacks are left out.
        directions: metric to the better direction; these metrics are compared, if both runs have them.

    Raises:
        ConfigError: if the runs share fewer than three pictures, or pictures of one name have other content.
    """
    ours = {row.key: row for row in first}
    shared = [(ours[row.key], row) for row in second if row.key in ours]
    if len(shared) < _LEAST:
        raise ConfigError(f"the runs share {len(shared)} pictures; {_LEAST} or more are compared")
    for one, other in shared:
        for side in ("lq", "hq"):
            a, b = one.sha256.get(side), other.sha256.get(side)
            if a is not None and b is not None and a != b:
                raise ConfigError(
                    f"{one.key}: the runs had different {side} pictures; they cannot be compared"
                )
    found: list[Comparison] = []
    for metric in directions:
        pairs = [
            (one.values[metric], other.values[metric])
            for one, other in shared
            if metric in one.values and metric in other.values
        ]
        if len(pairs) >= _LEAST:
            found.append(_compared(metric, np.asarray(pairs)))
    return [_judged(each, directions[each.metric]) for each in _adjusted(found)]


def _compared(metric: str, pairs: "np.ndarray[tuple[int, int], np.dtype[np.float64]]") -> Comparison:
    differences = pairs[:, 1] - pairs[:, 0]
    random = np.random.default_rng(0)
    count = len(differences)
    drawn, flipped = np.empty(RESAMPLES), np.empty(RESAMPLES)
    block = max(1, _AT_ONCE // count)  # 9999 x 3000 indices at once would take a quarter of a gigabyte
    for start in range(0, RESAMPLES, block):
        size = (min(block, RESAMPLES - start), count)
        drawn[start : start + block] = differences[random.integers(0, count, size)].mean(1)
        flipped[start : start + block] = (differences * random.choice((-1.0, 1.0), size)).mean(1)
    mean = float(differences.mean())
    # The signs that were seen are one of the ways, too: no p-value is 0. Equal up to rounding counts.
    as_large = np.abs(flipped) >= abs(mean) * (1 - 1e-12)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return Comparison(
        metric=metric,
        pairs=count,
        first=float(pairs[:, 0].mean()),
        second=float(pairs[:, 1].mean()),
        difference=mean,
        low=float(low),
        high=float(high),
        p_value=float((as_large.sum() + 1) / (RESAMPLES + 1)),
    )


def _adjusted(found: Sequence[Comparison]) -> list[Comparison]:
    """With the p-values of Holm, 1979: the k-th smallest of n times n - k + 1, none below a smaller one's."""
    order = sorted(range(len(found)), key=lambda index: found[index].p_value)
    adjusted = [1.0] * len(found)
    least = 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, found[index].p_value * (len(found) - rank)))
        adjusted[index] = least
    return [replace(each, p_adjusted=p) for each, p in zip(found, adjusted, strict=True)]


def _judged(each: Comparison, direction: Literal["higher", "lower"]) -> Comparison:
    if each.p_adjusted >= 0.05 or each.difference == 0:
        return each
    second_is_better = (each.difference > 0) == (direction == "higher")
    return replace(each, better="second" if second_is_better else "first")
