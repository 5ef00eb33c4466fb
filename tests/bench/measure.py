"""How figures are taken: side by side in one process or in fresh ones, and written down with their target."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

REPO = Path(__file__).parents[2]
PHOTO = REPO / "examples" / "photos" / "astronaut_thumbnail.jpg"
WALL = REPO / "examples" / "photos" / "wall_of_five.jpg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure: `value` against `reference`, and the target for their ratio (or for the value itself)."""

    name: str
    value: float
    unit: str
    compared_with: str = ""
    reference: float | None = None
    target: float | None = None
    sense: Literal["<=", ">="] = "<="
    of: Literal["ratio", "value"] = "ratio"
    runs: int = 5

    @property
    def ratio(self) -> float | None:
        return None if self.reference is None else self.value / self.reference

    @property
    def met(self) -> bool | None:
        figure = self.ratio if self.of == "ratio" else self.value
        if self.target is None or figure is None:
            return None
        return figure <= self.target if self.sense == "<=" else figure >= self.target


def interleaved(calls: Mapping[str, Callable[[], Any]], runs: int = 5) -> dict[str, float]:
    """Median seconds of each call; called once unmeasured, then in turn, so that drift hits all alike."""
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def fresh(job: str, **arguments: Any) -> dict[str, Any]:
    """Run a job of fresh.py in a new process: what it measured, and `wall` seconds from start to end."""
    command = [sys.executable, str(Path(__file__).with_name("fresh.py")), job, json.dumps(arguments)]
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    wall = time.perf_counter() - start
    return json.loads(done.stdout.splitlines()[-1]) | {"wall": wall}


def wall_seconds(command: list[str], runs: int = 5) -> float:
    """Median seconds of a command, from start to end."""

    def once() -> float:
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        return time.perf_counter() - start

    once()
    return statistics.median(once() for _ in range(runs))


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    import torch

    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cpu": {
            k: v for k, v in torch.cpu.get_capabilities().items() if k.startswith(("avx512", "amx", "arch"))
        },
    }


def write(rows: list[Row], out: Path) -> str:
    """Write bench.json and bench.md; returns the table."""
    out.mkdir(parents=True, exist_ok=True)
    facts = machine()
    data = [asdict(row) | {"ratio": row.ratio, "met": row.met} for row in rows]
    (out / "bench.json").write_text(json.dumps({"machine": facts, "rows": data}, indent=1) + "\n", "utf-8")
    lines = [
        "| what | figure | compared with | ratio | target | met | runs |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        against = (
            f"{row.compared_with} {_number(row.reference)} {row.unit}" if row.reference else row.compared_with
        )
        goal = "" if row.target is None else f"{row.of} {row.sense} {row.target:g}"
        verdict = {True: "yes", False: "NO", None: ""}[row.met]
        cells = (
            row.name,
            f"{_number(row.value)} {row.unit}",
            against,
            _number(row.ratio),
            goal,
            verdict,
            row.runs,
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    table = "\n".join(lines)
    text = f"# Benchmarks\n\n{facts['system']}, {facts['cores']} cores, torch {facts['torch']}\n\n{table}\n"
    (out / "bench.md").write_text(text, "utf-8")
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
