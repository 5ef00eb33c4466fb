"""Metrics: what a restored picture is worth, each with a card that says which variant it is.

`build("psnr", store)(pred, target)` gives one number a picture; `METRICS` are the names; `fid` compares sets.
"""

from facerestore.metrics.fid import Statistics, frechet_distance
from facerestore.metrics.identity import SAME_PERSON
from facerestore.metrics.metric import Card, Metric
from facerestore.metrics.table import ALIASES, METRICS, build, card

__all__ = [
    "ALIASES",
    "METRICS",
    "SAME_PERSON",
    "Card",
    "Metric",
    "Statistics",
    "build",
    "card",
    "frechet_distance",
]
