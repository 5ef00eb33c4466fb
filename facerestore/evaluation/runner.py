"""Evaluate a folder of restored pictures by a protocol: batched, resumable, on one process or many."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from facerestore import __version__
from facerestore.core.precision import resolve_device
from facerestore.evaluation.compare import Comparison, compare
from facerestore.evaluation.distances import Distances, build_distances
from facerestore.evaluation.landmarks import read_landmarks
from facerestore.evaluation.measuring import Meters, Picture, build_meters, cards_of, read
from facerestore.evaluation.page import write_page
from facerestore.evaluation.pictures import Case, Problem, Side, attributes_of, match
from facerestore.evaluation.processes import Processes
from facerestore.evaluation.protocol import ALL, Protocol, Thresholds
from facerestore.evaluation.report import Report, read_report
from facerestore.evaluation.rows import Row, Rows
from facerestore.evaluation.score import Failures, Mean, accepted, failures, means, score_of
from facerestore.metrics import SAME_PERSON
from facerestore.weights.store import WeightStore

_AT_ONCE = 8  # pictures that are measured together; bounds memory, never changes a number


def evaluate(
    protocol: Protocol,
    restored: str | os.PathLike[str],
    *,
    output_dir: str | os.PathLike[str],
    lq: str | os.PathLike[str] | None = None,
    hq: str | os.PathLike[str] | None = None,
    landmarks: str | os.PathLike[str] | None = None,
    attributes: str | os.PathLike[str] | None = None,
    store: WeightStore | None = None,
    device: str = "auto",
    compared_with: Sequence[str | os.PathLike[str]] = (),
    made_by: Mapping[str, Any] | None = None,
    title: str = "",
    on_start: Callable[[int, Mapping[str, str]], None] = lambda count, absent: None,
    on_row: Callable[[Row], None] = lambda row: None,
) -> Report | None:
    """Measure every picture of a folder, and write what was found.

    Below `output_dir` appear `report.json`, `report.md`, `pictures.csv`, `report.html`, for NTIRE's protocols
    the two CSV files of the official program, and `rows-0.jsonl` from which a run that was stopped goes on: a
    picture is measured again only if it, its metrics, their weights or a version changed. Nothing is
    downloaded. What a metric needs and is not there is named in the report, and its column left out; so is
    everything that is wrong with a picture.

    Several processes (as `accelerate launch` or `torchrun` start them) share the pictures; the first writes.

    Args:
        protocol: of `PROTOCOLS`, or from `find_protocol`.
        restored: folder of what is judged.
        output_dir: made if it is not there.
        lq: folder of the degraded pictures, the same tree.
        hq: folder of the sharp ones, the same tree.
        landmarks: CSV of five points in the official columns; what it lacks is found by a detector.
        attributes: CSV with a column `filename` and one an attribute, for means by attribute.
        compared_with: `report.json` files of other runs over the same pictures; metrics that were measured in
            the same way are compared.
        store: where weights are found.
        device: as for `facerestore.load`.
        made_by: what the restored pictures were made by, for the report.
        title: of the report; the folder's name if empty.
        on_start: called with the number of pictures to measure, and what cannot be measured with the reason.
        on_row: called after each picture.

    Returns:
        What was found; None in all processes but the first.

    Raises:
        ConfigError: if a folder is not there or empty, or the protocol names no metric that there is.
        DataError: if the table of landmarks, or a report to compare with, cannot be used.
        OutputError: if the output cannot be written.
    """
    store = store or WeightStore()
    place, folder = resolve_device(device), Path(output_dir)
    sides: dict[Side, Path] = {"restored": Path(restored)}
    sides |= {"lq": Path(lq)} if lq else {}
    sides |= {"hq": Path(hq)} if hq else {}
    cases, problems = match(protocol, sides["restored"], sides.get("lq"), sides.get("hq"))
    table = read_landmarks(Path(landmarks)) if landmarks else None
    described = attributes_of(Path(attributes), [case.key for case in cases]) if attributes else {}
    with Processes.of_environment() as processes, torch.no_grad():
        meters = build_meters(protocol, store, place, tuple(sides), table)
        distances = build_distances(protocol, store, place, tuple(sides), folder / "features")
        cards = _hashed(cards_of(meters) | distances.cards, store)
        run = _fingerprint(protocol, cards, table.path if table else None)
        rows = Rows(folder, run, processes.rank)
        share = cases[processes.rank :: processes.count]
        todo = [case for case in share if rows.done(case) is None or not distances.done(case, rows)]
        on_start(len(todo), {**meters.absent, **distances.absent})
        for pictures in _read_ahead(todo, protocol.side_px):
            for row in _measured(pictures, meters, distances):
                rows.append(row)
                on_row(row)
        processes.wait()
        if processes.rank:
            return None
        rows.reread()
        found = [row for case in cases if (row := rows.rows.get(case.key)) is not None]
        report = _report(protocol, found, problems, meters, distances, cards, described)
        report = replace(
            report,
            title=title or sides["restored"].name,
            provenance=_provenance(cases, place, made_by or {}, found),
        )
        _write(report, folder, sides["restored"], cases, compared_with)
        return report


def _measured(pictures: Sequence[Picture], meters: Meters, distances: Distances) -> Iterator[Row]:
    """Rows of pictures in their order; those of one size are measured together."""
    rows: dict[str, Row] = {}
    groups: dict[tuple[int, ...], list[Picture]] = {}
    for picture in pictures:
        if picture.problem is None:
            groups.setdefault(tuple(picture.images["restored"].shape), []).append(picture)
        else:
            case = picture.case
            rows[case.key] = Row(
                key=case.key, subset=case.subset, sha256=picture.sha256, problem=picture.problem
            )
    for group in groups.values():
        distances.describe(group)
        rows |= {row.key: row for row in meters.measure(group)}
    yield from (rows[picture.case.key] for picture in pictures)


def _read_ahead(cases: Sequence[Case], side_px: int) -> Iterator[list[Picture]]:
    """Chunks of pictures, the next one read while the last is measured."""
    chunks = [cases[start : start + _AT_ONCE] for start in range(0, len(cases), _AT_ONCE)]

    def load(chunk: Sequence[Case]) -> list[Picture]:
        return [read(case, side_px) for case in chunk]

    with ThreadPoolExecutor(1) as reader:
        waiting = [reader.submit(load, chunk) for chunk in chunks[:1]]
        for number in range(len(chunks)):
            ready = waiting.pop().result()
            waiting += [reader.submit(load, chunk) for chunk in chunks[number + 1 : number + 2]]
            yield ready


def _report(
    protocol: Protocol,
    rows: Sequence[Row],
    problems: Sequence[Problem],
    meters: Meters,
    distances: Distances,
    cards: Mapping[str, Mapping[str, Any]],
    described: Mapping[str, Mapping[str, str]],
) -> Report:
    """Everything that follows from the rows."""
    measured = [row for row in rows if row.problem is None]
    wrong = [*problems, *(_problem(row) for row in rows if row.problem)]
    for row in measured:
        wrong += [Problem("not measured", row.key, f"{key}: {why}") for key, why in row.errors.items()]
    keys = [column.key for column, _ in meters.columns]
    table = means(protocol, measured, keys)
    values, absent = distances.measure(measured)
    counted = _failures(protocol, measured, keys)
    judged = counted[0] if counted and counted[0].metric == protocol.judge else None
    unmeasured = sum(subset.count for subset in protocol.subsets) - len(measured)
    numbers = {key: mean.value for key, mean in table[ALL].items()} | values
    return Report(
        title="",
        protocol=protocol,
        rows=tuple(measured),
        problems=tuple(wrong),
        cards=cards,
        absent=dict(meters.absent) | dict(distances.absent) | absent,
        table=table,
        distances=values,
        failures=counted,
        score=score_of(numbers) if protocol.score == "ntire" else None,
        accepted=accepted(protocol, judged, max(0, unmeasured)),
        slices=_slices(protocol, measured, keys, described),
    )


def _problem(row: Row) -> Problem:
    kind, message = row.problem or ("unreadable", "")
    return Problem("wrong size" if kind == "wrong size" else "unreadable", row.key, message)


def _failures(protocol: Protocol, rows: Sequence[Row], keys: Sequence[str]) -> tuple[Failures, ...]:
    """By each of the protocol's thresholds; where the judge is absent, by those of the stand-ins alone."""
    if protocol.judge in keys:
        return tuple(failures(each, protocol.judge, rows) for each in protocol.thresholds)
    standing = [column for column in protocol.columns if column.stands_in == protocol.judge]
    return tuple(
        failures(_own_thresholds(protocol, column.metric), column.key, rows)
        for column in standing
        if protocol.judge and column.key in keys
    )


def _own_thresholds(protocol: Protocol, metric: str) -> Thresholds:
    values = tuple((subset.name, SAME_PERSON[metric]) for subset in protocol.subsets)
    return Thresholds(name="its own", values=values)


def _slices(
    protocol: Protocol, rows: Sequence[Row], keys: Sequence[str], described: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, dict[str, Mean]]]:
    whole = replace(protocol, subsets=(), thresholds=())
    attributes = dict.fromkeys(name for each in described.values() for name in each)
    slices: dict[str, dict[str, dict[str, Mean]]] = {}
    for attribute in attributes:
        values = sorted({each[attribute] for each in described.values() if each.get(attribute)})
        slices[attribute] = {
            value: means(
                whole, [row for row in rows if described.get(row.key, {}).get(attribute) == value], keys
            )[ALL]
            for value in values
        }
    return slices


def _hashed(cards: Mapping[str, Mapping[str, Any]], store: WeightStore) -> dict[str, dict[str, Any]]:
    """Cards with the hash of each weight and the version of the package that measures."""
    found: dict[str, dict[str, Any]] = {}
    for key, card in cards.items():
        package = card.get("package", "")
        found[key] = dict(card) | {
            "weights": {name: store.sha256(name) for name in card["weights"]},
            "package": f"{package} {metadata.version(package)}" if package else "",
        }
    return found


def _fingerprint(protocol: Protocol, cards: Mapping[str, Any], landmarks: Path | None) -> str:
    """Of what a row depends on besides its pictures; thresholds and the score are no part of it."""
    parts = {
        "columns": [column.to_dict() for column in protocol.columns],
        "side_px": protocol.side_px,
        "match_mean_std": protocol.match_mean_std,
        "cards": cards,
        "landmarks": hashlib.sha256(landmarks.read_bytes()).hexdigest() if landmarks else "",
        "facerestore": __version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _provenance(
    cases: Sequence[Case], device: torch.device, made_by: Mapping[str, Any], rows: Sequence[Row]
) -> dict[str, Any]:
    listed = hashlib.sha256(json.dumps([[row.key, dict(row.sha256)] for row in rows]).encode()).hexdigest()
    versions = {"facerestore": __version__, "torch": torch.__version__}
    return {
        "pictures": f"{len(cases)}, sha256 of their names and contents {listed}",
        "device": str(device),
        "versions": versions,
        "made by": dict(made_by),
    }


def _write(
    report: Report,
    folder: Path,
    restored: Path,
    cases: Sequence[Case],
    others: Sequence[str | os.PathLike[str]],
) -> None:
    """Write the report, and the page with the comparisons."""
    directions = {key: card["direction"] for key, card in report.cards.items() if key in report.table[ALL]}
    comparisons: dict[str, list[Comparison]] = {}
    for path in map(Path, others):
        title, rows, cards = read_report(path)
        same = {key: value for key, value in directions.items() if cards.get(key) == report.cards[key]}
        comparisons[f"{title} ({path.resolve().parent.name})"] = compare(rows, report.rows, same)
    whole = restored.resolve()
    report.write(folder, f"{whole.parent.name}--{whole.name}", comparisons)
    write_page(folder / "report.html", report, cases, comparisons)
