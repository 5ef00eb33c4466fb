"""`report.html`: one self-contained page: tables, distributions, the worst faces with the reason."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from facerestore.core.errors import ImageError
from facerestore.evaluation.compare import Comparison
from facerestore.evaluation.pictures import Case
from facerestore.evaluation.protocol import ALL, Protocol
from facerestore.evaluation.report import Report, headline, shown
from facerestore.evaluation.rows import Row
from facerestore.imaging.read import read_image
from facerestore.imaging.whole import whole_file
from facerestore.metrics import SAME_PERSON
from facerestore.report.shell import WARNING, escaped, foot, head, jpeg_uri
from facerestore.report.thumbnail import thumbnail

_WORST = 12
_FACE_PX = 224
_BINS = 24
_SIDES = {"lq": "degraded", "restored": "restored", "hq": "sharp"}
_WIDE, _HIGH = 300, 90  # of a histogram


def write_page(
    path: Path,
    report: Report,
    cases: Sequence[Case] = (),
    comparisons: Mapping[str, Sequence[Comparison]] | None = None,
) -> Path:
    """Write the page, whole or not at all.

    Args:
        path: where it goes.
        report: what was found.
        cases: where the pictures are, for the worst of them.
        comparisons: name of another run to what it was compared by.

    Raises:
        OutputError: if it cannot be written.
    """
    parts = [
        head(f"{report.title}: {report.protocol.name}"),
        _list(headline(report)),
        f'<p class="warning">{WARNING}</p>',
        _card("By subset", _means(report)),
        *(_card(f"Against {name}", _compared(name, found)) for name, found in (comparisons or {}).items()),
        *(
            _card(f"By {attribute}", _means_of(report, attribute, values))
            for attribute, values in report.slices.items()
        ),
        _card("Distributions", f'<div class="faces">{"".join(_histograms(report))}</div>'),
        _card("Worst pictures", _worst(report, {case.key: case for case in cases})),
        _card("Not measured", _terms(report.absent)) if report.absent else "",
        _card("Problems", _list(f"{each.kind}: {each.key}: {each.message}" for each in report.problems))
        if report.problems
        else "",
        _card("What was measured", _terms({key: _described(card) for key, card in report.cards.items()})),
        _card("How this was made", _terms(report.provenance)),
        _card("Every picture", _pictures(report)),
        foot(),
    ]
    with whole_file(path) as page:
        page.write("\n".join(parts).encode(errors="backslashreplace"))
    return path


def _card(title: str, body: str) -> str:
    return f'<section class="card"><h2>{escaped(title)}</h2>{body}</section>'


def _list(lines: Any) -> str:
    return f"<ul>{''.join(f'<li><bdi>{escaped(line)}</bdi></li>' for line in lines)}</ul>"


def _terms(entries: Mapping[str, Any]) -> str:
    lines = (f"<dt>{escaped(name)}</dt><dd>{escaped(value)}</dd>" for name, value in entries.items())
    return f"<dl>{''.join(lines)}</dl>"


def _described(card: Mapping[str, Any]) -> str:
    weights = ", ".join(f"{name} sha256 {digest}" for name, digest in card["weights"].items())
    return ". ".join(part for part in (card["how"], card["package"], weights) if part)


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th scope=col>{escaped(name)}</th>" for name in heads)
    body = "".join(
        f"<tr>{''.join(f'<td><bdi>{escaped(cell)}</bdi></td>' for cell in row)}</tr>" for row in rows
    )
    return f'<div class="scroll"><table class="numbers"><tr>{top}</tr>{body}</table></div>'


def _heads(report: Report) -> list[str]:
    arrows = {"higher": "↑", "lower": "↓"}
    return [f"{key} {arrows[report.cards[key]['direction']]}" for key in report.table[ALL]]


def _means(report: Report) -> str:
    keys = list(report.table[ALL])
    lines = [[name, *(shown(row[key]) for key in keys)] for name, row in report.table.items()]
    return _rows(["subset", *_heads(report)], lines)


def _means_of(report: Report, attribute: str, values: Mapping[str, Mapping[str, Any]]) -> str:
    keys = list(report.table[ALL])
    lines = [[value, *(shown(row[key]) for key in keys)] for value, row in values.items()]
    return _rows([attribute, *_heads(report)], lines)


def _compared(name: str, found: Sequence[Comparison]) -> str:
    heads = ["metric", "pictures", name, "this run", "difference", "95 % interval", "p", "p (Holm)", "better"]
    words = {"first": name, "second": "this run", "neither": "neither, beyond chance"}
    lines = [
        [
            each.metric,
            str(each.pairs),
            f"{each.first:.4f}",
            f"{each.second:.4f}",
            f"{each.difference:+.4f}",
            f"{each.low:+.4f} to {each.high:+.4f}",
            f"{each.p_value:.4f}",
            f"{each.p_adjusted:.4f}",
            words[each.better],
        ]
        for each in found
    ]
    note = (
        '<p class="soft">Paired over the pictures that both have: bootstrap of the mean difference, '
        "test of random signs, corrected for the number of metrics.</p>"
    )
    return _rows(heads, lines) + note


def _histograms(report: Report) -> list[str]:
    """One drawing a metric: how many pictures have which number."""
    drawn: list[str] = []
    for key in report.table[ALL]:
        values = [row.values[key] for row in report.rows if key in row.values]
        if not values:
            continue
        low, high = min(values), max(values)
        step = (high - low) / _BINS or 1.0
        counts = [0] * _BINS
        for value in values:
            counts[min(_BINS - 1, int((value - low) / step))] += 1
        width = _WIDE / _BINS
        bars = "".join(
            f'<rect x="{number * width:.1f}" y="{_HIGH * (1 - count / max(counts)):.1f}" '
            f'width="{width - 1:.1f}" height="{_HIGH * count / max(counts):.1f}" fill="currentColor"/>'
            for number, count in enumerate(counts)
        )
        label = f"{key}: {low:.4g} to {high:.4g}, median {median(values):.4g}, {len(values)} pictures"
        drawn.append(
            f'<figure><svg viewBox="0 0 {_WIDE} {_HIGH}" width="{_WIDE}" height="{_HIGH}" role="img" '
            f'aria-label="{escaped(label)}">{bars}</svg><figcaption>{escaped(label)}</figcaption></figure>'
        )
    return drawn


def worst_pictures(report: Report, count: int = _WORST) -> list[tuple[Row, str]]:
    """The pictures to look at first, each with the reason.

    Those whose identity failed come first, by how far below the threshold they lie; then, metric by metric in
    turn, the one that is worst by it.
    """
    found: dict[str, tuple[Row, str]] = {}
    failed: list[tuple[float, Row, str]] = []
    for row in report.rows:
        for metric, limit in _limits(report.protocol, row.subset).items():
            if metric in row.values and row.values[metric] < limit:
                text = f"{metric} {row.values[metric]:.3f} is below {limit:g}: another person?"
                failed.append((row.values[metric] - limit, row, text))
    for _, row, text in sorted(failed, key=lambda item: item[0]):
        found.setdefault(row.key, (row, text))
    orders = {key: _from_worst(report, key) for key in report.table[ALL]}
    for rank in range(max((len(order) for order in orders.values()), default=0)):
        for key, order in orders.items():
            if rank < len(order) and len(found) < count:
                middle = median(row.values[key] for row in order)
                row = order[rank]
                place = (
                    f"number {rank + 1} from the worst of {len(order)}"
                    if rank
                    else f"the worst of {len(order)}"
                )
                text = f"{key} {row.values[key]:.4g}, {place}; the median is {middle:.4g}"
                found.setdefault(row.key, (row, text))
    return list(found.values())[:count]


def _limits(protocol: Protocol, subset: str) -> dict[str, float]:
    """Similarities below which a face counts as somebody else's: of the judge, and of its stand-ins."""
    limits = dict(SAME_PERSON)
    deciding = protocol.thresholds[0].of(subset) if protocol.thresholds else None
    return limits if deciding is None else limits | {protocol.judge: deciding}


def _from_worst(report: Report, key: str) -> list[Row]:
    higher = report.cards[key]["direction"] == "higher"
    rows = [row for row in report.rows if key in row.values]
    return sorted(rows, key=lambda row: row.values[key], reverse=not higher)


def _worst(report: Report, cases: Mapping[str, Case]) -> str:
    figures: list[str] = []
    for row, reason in worst_pictures(report):
        case = cases.get(row.key)
        sides = [(side, case.path(side)) for side in ("lq", "restored", "hq")] if case else []
        images = "".join(_face(_SIDES[side], path, row.key) for side, path in sides if path is not None)
        figures.append(f"<h3><bdi>{escaped(row.key)}</bdi></h3><p>{escaped(reason)}</p>")
        figures.append(f'<div class="faces">{images}</div>')
    return "".join(figures)


def _face(side: str, path: Path, key: str) -> str:
    try:
        image = read_image(path).srgb()
    except ImageError:
        return ""
    scale = _FACE_PX / max(image.shape[2:])
    width, height = max(1, round(image.shape[3] * scale)), max(1, round(image.shape[2] * scale))
    uri = jpeg_uri(thumbnail(image, width, height))
    image_tag = f'<img src="{uri}" alt="{side}: {escaped(key)}" width="{width}" height="{height}">'
    return f"<figure>{image_tag}<figcaption>{side}</figcaption></figure>"


def _pictures(report: Report) -> str:
    keys = list(report.table[ALL])
    lines = [
        [row.key, *(f"{row.values[key]:.4f}" if key in row.values else "–" for key in keys)]
        for row in report.rows
    ]
    table = _rows(["picture", *_heads(report)], lines)
    return f"<details><summary>{len(lines)} pictures</summary>{table}</details>"
