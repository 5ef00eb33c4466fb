"""From numbers of pictures to those of a set: means, failures of identity, the score of the challenges."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from facerestore.evaluation.protocol import ALL, Protocol, Thresholds
from facerestore.evaluation.rows import Row

TERMS = ("clipiqa", "maniqa", "musiq", "niqe", "qalign", "fid")
"""Of the score, in the order of `ntire_score`."""
_COLUMN_OF = {"niqe": "niqe-pyiqa", "fid": "fid-ffhq"}


def ntire_score(
    *,
    clipiqa: float | None,
    maniqa: float | None,
    musiq: float | None,
    niqe: float | None,
    qalign: float | None,
    fid: float | None,
) -> float:
    """The total of the NTIRE face restoration challenges, of numbers for all pictures: six terms, at most 6.

    CLIPIQA + MANIQA + MUSIQ / 100 + max(0, (10 - NIQE) / 10) + Q-Align / 5 + max(0, (100 - FID) / 100).

    Args:
        clipiqa: mean, 0 to 1.
        maniqa: mean.
        musiq: mean, 0 to 100.
        niqe: mean, lower is better; never below 0 as a term.
        qalign: mean, 1 to 5.
        fid: of all pictures, lower is better; never below 0 as a term.

    Returns:
        The sum. A term that is None is left out: such a sum is partial, and compares with nothing else.

    Reference:
        NTIRE 2025 and 2026 challenges on real-world face restoration, arXiv:2504.14600 and arXiv:2604.10532.
    Parity:
        zhengchen1999/NTIRE2025_RealWorld_Face_Restoration `eval.py`; all ten rows of the table of 2026
        within 1e-4, which is their rounding.
    """
    terms = (
        clipiqa,
        maniqa,
        None if musiq is None else musiq / 100,
        None if niqe is None else max(0.0, (10 - niqe) / 10),
        None if qalign is None else qalign / 5,
        None if fid is None else max(0.0, (100 - fid) / 100),
    )
    return sum(term for term in terms if term is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A total, and how much of it there is.

    Attributes:
        value: the sum of the terms that could be measured.
        missing: those that could not. With any, the score is partial, and compares with no whole one.
    """

    value: float
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean over pictures.

    Attributes:
        value: None if no picture has one.
        measured: how many pictures have one.
        expected: how many were to.
    """

    value: float | None
    measured: int
    expected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failures:
    """How many faces are somebody else after restoring.

    Attributes:
        thresholds: whose.
        metric: whose similarities.
        counts: subset, and `All`, to how many lie below the threshold.
        unjudged: pictures without a similarity, which count neither way.
    """

    thresholds: str
    metric: str
    counts: Mapping[str, int]
    unjudged: int


def means(protocol: Protocol, rows: Sequence[Row], keys: Sequence[str]) -> dict[str, dict[str, Mean]]:
    """Mean of each column over each subset, and over all of them.

    `All` is the mean of the subsets' means, each with the weight that the protocol says it has, whatever
    number of its pictures is there: that is how the challenges count. Without subsets it is the plain mean.

    Returns:
        Subset, and `All`, to column to mean.
    """
    table: dict[str, dict[str, Mean]] = {}
    for subset in protocol.subsets:
        mine = [row for row in rows if row.subset == subset.name]
        table[subset.name] = {key: _mean(mine, key, subset.count) for key in keys}
    if not protocol.subsets:
        return {ALL: {key: _mean(rows, key, 0) for key in keys}}
    weights = {subset.name: subset.count for subset in protocol.subsets}
    table[ALL] = {key: _weighted({name: table[name][key] for name in weights}, weights) for key in keys}
    return table


def _mean(rows: Sequence[Row], key: str, count: int) -> Mean:
    values = [row.values[key] for row in rows if key in row.values]
    mean = math.fsum(values) / len(values) if values else None
    return Mean(value=mean, measured=len(values), expected=count or len(rows))


def _weighted(parts: Mapping[str, Mean], weights: Mapping[str, int]) -> Mean:
    shares = {
        name: (weights[name] or part.expected, part.value)
        for name, part in parts.items()
        if part.value is not None
    }
    whole = sum(weight for weight, _ in shares.values())
    total = math.fsum(weight * value for weight, value in shares.values())
    return Mean(
        value=total / whole if whole else None,
        measured=sum(part.measured for part in parts.values()),
        expected=sum(part.expected for part in parts.values()),
    )


def failures(thresholds: Thresholds, metric: str, rows: Sequence[Row]) -> Failures:
    """Count similarities below the threshold of their subset; equal ones pass, as `eval.py` has it."""
    counts = {name: 0 for name, _ in thresholds.values} | {ALL: 0}
    unjudged = 0
    for row in rows:
        threshold = thresholds.of(row.subset)
        if threshold is None:
            continue
        if metric not in row.values:
            unjudged += 1
        elif row.values[metric] < threshold:
            counts[row.subset] += 1
            counts[ALL] += 1
    return Failures(thresholds=thresholds.name, metric=metric, counts=counts, unjudged=unjudged)


def score_of(values: Mapping[str, float | None]) -> Score:
    """The score of a set's numbers, columns by their keys; stand-ins do not count."""
    terms = {term: values.get(_COLUMN_OF.get(term, term)) for term in TERMS}
    return Score(
        value=ntire_score(**terms), missing=tuple(term for term, value in terms.items() if value is None)
    )


def accepted(protocol: Protocol, counted: Failures | None, unmeasured: int = 0) -> bool | None:
    """Whether few enough faces failed: the limit itself passes, as a team with ten did in 2026.

    Args:
        protocol: says how many may.
        counted: by its deciding thresholds; None if they could not be.
        unmeasured: pictures of the set that are not there.

    Returns:
        None where it cannot be said: there is no limit, or pictures without a similarity could change it.
    """
    if protocol.most_failures is None or counted is None:
        return None
    if counted.counts[ALL] > protocol.most_failures:
        return False
    return None if counted.unjudged + unmeasured else True
