"""Which weights ask for a yes before they are fetched, and where that yes is kept."""

from collections.abc import Iterable
from pathlib import Path

from facerestore.core.errors import LicenceNotAccepted, OutputError
from facerestore.weights.records import read_record, write_record
from facerestore.weights.spec import WeightSpec
from facerestore.weights.store import cache_folder

FREE = frozenset({"Apache-2.0", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "MIT", "CreativeML Open RAIL++-M"})
"""Licences that let everybody use a work for any trade, known by name: every other one is asked about."""


def needs_acceptance(spec: WeightSpec) -> bool:
    """Whether a weight is non-commercial, gated, or under a licence that nobody stated."""
    return spec.licence not in FREE


def require_acceptance(specs: Iterable[WeightSpec], *, accept: bool) -> None:
    """Let weights pass whose licence is free or was accepted; with `accept`, accept those of all and say so.

    What was accepted is written into the user's cache folder, and counts while the licence stays the same.

    Args:
        specs: the weights.
        accept: whether the user accepts their licences now.

    Raises:
        LicenceNotAccepted: names each weight whose licence is still to be accepted, and the licence.
        OutputError: if the answer cannot be kept.
    """
    kept = _kept()
    asked = [spec for spec in specs if needs_acceptance(spec) and kept.get(spec.name) != spec.licence]
    if asked and not accept:
        lines = "".join(f"\n  {spec.name}: {spec.licence} ({spec.citation})" for spec in asked)
        raise LicenceNotAccepted(
            f"The licences of these weights have to be accepted once:{lines}\nIf you may use them so, run "
            "the same command with --accept-licence, in Python accept_licence=True"
        )
    if asked:
        _keep(kept | {spec.name: spec.licence for spec in asked})


def _record() -> Path:
    return cache_folder() / "accepted-licences.json"


def _kept() -> dict[str, str]:
    return read_record(_record())  # none yet, or damaged: then it is asked again


def _keep(answers: dict[str, str]) -> None:
    try:
        write_record(_record(), answers)
    except OSError as error:
        raise OutputError(f"{_record()} cannot be written: {error}") from error
