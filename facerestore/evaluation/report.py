"""What an evaluation found, as data, as Markdown and as files."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from facerestore.core.errors import DataError
from facerestore.evaluation.compare import Comparison
from facerestore.evaluation.official import NAMES, official_pictures, official_total
from facerestore.evaluation.pictures import Problem
from facerestore.evaluation.protocol import ALL, Protocol
from facerestore.evaluation.rows import Row
from facerestore.evaluation.score import TERMS, Failures, Mean, Score, ntire_score
from facerestore.imaging.whole import whole_file

_ARROWS = {"higher": "↑", "lower": "↓"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an evaluation found.

    Attributes:
        title: of the run: the recipe, or the folder of the restored pictures.
        protocol: by which it was measured.
        rows: one a picture, in the order of the subsets.
        problems: everything that the numbers do not show.
        cards: column to what it is: metric, variant, direction, weights and their hashes.
        absent: column to why it could not be measured.
        table: subset, and `All`, to column to mean.
        distances: column to the distance over all pictures, None where it could not be measured.
        failures: of identity: by the thresholds that decide, then by the others; then of stand-ins.
        score: the total, if the protocol has one.
        accepted: whether few enough faces failed; None where that cannot be said.
        slices: attribute to value to column to mean.
        provenance: versions, device, hash of the list of pictures, what made them.
    """

    title: str
    protocol: Protocol
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...]
    cards: Mapping[str, Mapping[str, Any]]
    absent: Mapping[str, str]
    table: Mapping[str, Mapping[str, Mean]]
    distances: Mapping[str, float | None]
    failures: tuple[Failures, ...]
    score: Score | None
    accepted: bool | None
    slices: Mapping[str, Mapping[str, Mapping[str, Mean]]] = field(
        default_factory=dict[str, Mapping[str, Mapping[str, Mean]]]
    )
    provenance: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def partial(self) -> tuple[str, ...]:
        """Why the numbers are not those of a whole set; empty if they are."""
        reasons: list[str] = []
        if self.problems:
            reasons.append(f"{len(self.problems)} problems with pictures")
        for key, mean in self.table[ALL].items():
            if mean.measured < mean.expected:
                reasons.append(f"{key} of {mean.measured} of {mean.expected} pictures")
        if self.score is not None and self.score.missing:
            reasons.append(f"a score without {', '.join(self.score.missing)}")
        return tuple(reasons)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        return {
            "title": self.title,
            "protocol": self.protocol.to_dict() | {"fingerprint": self.protocol.fingerprint()},
            "partial": list(self.partial),
            "score": None if self.score is None else asdict(self.score),
            "accepted": self.accepted,
            "failures": [asdict(each) for each in self.failures],
            "table": {
                name: {key: asdict(mean) for key, mean in row.items()} for name, row in self.table.items()
            },
            "distances": dict(self.distances),
            "slices": {
                attribute: {
                    value: {key: asdict(mean) for key, mean in row.items()} for value, row in values.items()
                }
                for attribute, values in self.slices.items()
            },
            "metrics": {key: dict(card) for key, card in self.cards.items()},
            "absent": dict(self.absent),
            "problems": [asdict(problem) for problem in self.problems],
            "provenance": dict(self.provenance),
            "pictures": [asdict(row) for row in self.rows],
        }

    def markdown(self) -> str:
        """The tables, for a terminal, an issue or a paper's draft."""
        return "\n".join(_markdown(self)) + "\n"

    def csv(self) -> str:
        """A line a picture: key, subset, each column, and why a cell is empty."""
        keys = list(self.table[ALL])
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["key", "subset", *keys, "notes"])
        for row in self.rows:
            notes = [f"{key}: {error}" for key, error in row.errors.items()]
            writer.writerow(
                [row.key, row.subset, *(row.values.get(key, "") for key in keys), "; ".join(notes)]
            )
        return text.getvalue()

    def official(self) -> tuple[str, str]:
        """The two CSV files of the NTIRE program: totals, and pictures; see `evaluation.official`."""
        deciding = self.failures[0] if self.failures else None
        low = deciding.counts if deciding and deciding.metric == self.protocol.judge else {}
        values = {name: {key: mean.value for key, mean in row.items()} for name, row in self.table.items()}
        fid = self.distances.get("fid-ffhq")
        numbers: dict[str, float | None] = {**values[ALL], "fid-ffhq": fid}
        return official_total(values, fid, low, _official_terms(numbers)), official_pictures(self.rows)

    def write(
        self, folder: Path, name: str, comparisons: Mapping[str, Sequence[Comparison]] | None = None
    ) -> list[Path]:
        """Write `report.json`, `report.md`, `pictures.csv`, and for NTIRE's protocols the two official files.

        Args:
            folder: is there.
            name: of the official files: `<parent>--<folder>`.
            comparisons: name of another run to what this one was compared by.

        Raises:
            OutputError: if one cannot be written.
        """
        compared = {run: [asdict(each) for each in found] for run, found in (comparisons or {}).items()}
        data = self.to_dict() | {"comparisons": compared}
        lines = [line for run, found in (comparisons or {}).items() for line in _against(run, found)]
        texts = {
            "report.json": json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
            "report.md": self.markdown() + "".join(f"{line}\n" for line in lines),
            "pictures.csv": self.csv(),
        }
        if self.protocol.score == "ntire":
            texts[f"{name}_total.csv"], texts[f"{name}.csv"] = self.official()
        for file, text in texts.items():
            with whole_file(folder / file) as stream:
                stream.write(text.encode())
        return [folder / file for file in texts]


def read_report(path: Path) -> tuple[str, list[Row], dict[str, Any]]:
    """Title, rows and cards of a `report.json`.

    Raises:
        DataError: if it is none.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return str(data["title"]), [Row.of(row) for row in data["pictures"]], dict(data["metrics"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: is no report.json of an evaluation ({type(error).__name__}: {error})"
        ) from error


def _against(run: str, found: Sequence[Comparison]) -> list[str]:
    words = {"first": run, "second": "this run", "neither": "neither, beyond chance"}
    heads = ["metric", "pictures", run, "this run", "difference", "95 % interval", "p (Holm)", "better"]
    cells = [
        [
            each.metric, str(each.pairs), f"{each.first:.4f}", f"{each.second:.4f}",
            f"{each.difference:+.4f}", f"{each.low:+.4f} to {each.high:+.4f}",
            f"{each.p_adjusted:.4f}", words[each.better],
        ]
        for each in found
    ]  # fmt: skip
    return ["", f"## Against {run}", "", *_table(heads, cells)]


def _official_terms(values: Mapping[str, float | None]) -> dict[str, float]:
    """The terms of the score by the names of the official file."""
    terms: dict[str, float] = {}
    for key, name in {"fid-ffhq": "FID", **NAMES}.items():
        term = {"niqe-pyiqa": "niqe", "fid-ffhq": "fid"}.get(key, key)
        value = values.get(key)
        if term in TERMS and value is not None:
            only: dict[str, float | None] = dict.fromkeys(TERMS) | {term: value}
            terms[name] = ntire_score(**only)
    return terms


def _markdown(report: Report) -> list[str]:
    lines = [f"# {report.title}: {report.protocol.name}", ""]
    lines += [*(f"* {line}" for line in headline(report)), ""]
    keys = list(report.table[ALL])
    if keys:
        heads = [f"{key} {_ARROWS[report.cards[key]['direction']]}" for key in keys]
        cells = [[name, *(shown(row[key]) for key in keys)] for name, row in report.table.items()]
        lines += [*_table(["", *heads], cells), ""]
    for attribute, values in report.slices.items():
        cells = [[value, *(shown(row[key]) for key in keys)] for value, row in values.items()]
        lines += [f"## By {attribute}", "", *_table([attribute, *keys], cells), ""]
    if report.absent:
        lines += ["## Not measured", "", *(f"* {key}: {why}" for key, why in report.absent.items()), ""]
    if report.problems:
        lines += ["## Problems", ""]
        lines += [*(f"* {each.kind}: {each.key}: {each.message}" for each in report.problems), ""]
    lines += ["## What was measured", ""]
    lines += [f"* {key}: {card['how']}" for key, card in report.cards.items()]
    lines += ["", *(f"* {name}: {value}" for name, value in report.provenance.items())]
    return lines


def headline(report: Report) -> list[str]:
    """What a person wants to know first: score, identity, distances, and whether all of it counts."""
    lines: list[str] = []
    if report.score is not None:
        missing = f", partial: without {', '.join(report.score.missing)}" if report.score.missing else ""
        whole = f"score {report.score.value:.4f}{missing}"
        none = len(report.score.missing) == len(TERMS)
        lines.append("no score: none of its terms could be measured" if none else whole)
    for each in report.failures:
        unjudged = f", {each.unjudged} not judged" if each.unjudged else ""
        whose = f"{each.metric}, thresholds of {each.thresholds}"
        lines.append(f"identity failures by {whose}: {each.counts[ALL]}{unjudged}")
    if report.protocol.most_failures is not None:
        verdict = {True: "accepted", False: "rejected", None: "cannot be said"}[report.accepted]
        lines.append(f"at most {report.protocol.most_failures} failures: {verdict}")
    for key, value in report.distances.items():
        lines.append(f"{key} {'not measured' if value is None else format(value, '.4f')}")
    for reason in report.partial:
        lines.append(f"partial: {reason}")
    return lines


def shown(mean: Mean) -> str:
    """A mean for a table, with how many pictures it is of where that is not all."""
    if mean.value is None:
        return "–"
    of = "" if mean.measured == mean.expected else f" ({mean.measured}/{mean.expected})"
    return f"{mean.value:.4f}{of}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return [line(heads), line(["---", *["---:"] * (len(heads) - 1)]), *(line(row) for row in rows)]
