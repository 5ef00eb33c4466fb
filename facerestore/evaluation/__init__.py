"""Evaluate restored faces by a frozen protocol, and prove what the numbers are.

`evaluate` measures a folder; `PROTOCOLS` are the protocols that have a name; `compare` says whether one run
is better than another beyond chance.
"""

from facerestore.evaluation.compare import Comparison, compare
from facerestore.evaluation.pictures import Case, Problem
from facerestore.evaluation.protocol import (
    NTIRE2025,
    NTIRE2026_CODE,
    NTIRE2026_REPORT,
    PAPERS,
    PROTOCOLS,
    Column,
    Distance,
    Protocol,
    Subset,
    Thresholds,
    find_protocol,
)
from facerestore.evaluation.report import Report
from facerestore.evaluation.rows import Row
from facerestore.evaluation.runner import evaluate
from facerestore.evaluation.score import Failures, Mean, Score, ntire_score

__all__ = [
    "NTIRE2025",
    "NTIRE2026_CODE",
    "NTIRE2026_REPORT",
    "PAPERS",
    "PROTOCOLS",
    "Case",
    "Column",
    "Comparison",
    "Distance",
    "Failures",
    "Mean",
    "Problem",
    "Protocol",
    "Report",
    "Row",
    "Score",
    "Subset",
    "Thresholds",
    "compare",
    "evaluate",
    "find_protocol",
    "ntire_score",
]
