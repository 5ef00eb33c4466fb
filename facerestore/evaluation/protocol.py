"""What is measured, on which pictures, and what follows from it: frozen protocols, known by their names."""

import difflib
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, cast

from facerestore.core.config import Config
from facerestore.core.errors import ConfigError

Against = Literal["", "lq", "hq", "ffhq"]
ALL = "All"
"""Name of the row over all subsets, so no subset has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset(Config):
    """A folder of a set.

    Raises:
        ConfigError: if its name cannot be a folder's, or the count is negative.
    """

    name: str
    """Of the folder; upper and lower case are alike."""
    count: int = 0
    """How many pictures it has, which is also its weight in the mean; 0 for as many as there are."""

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name == ALL or self.count < 0:
            raise ConfigError(
                f"a subset has the name of a folder, not {ALL!r}, and a count of 0 or more: {self}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds(Config):
    """Below which similarity a restored face counts as somebody else.

    Attributes:
        name: says who uses them.
        values: subset and threshold; a similarity equal to the threshold passes.
    """

    name: str
    values: tuple[tuple[str, float], ...]

    def of(self, subset: str) -> float | None:
        """The threshold of a subset, None where it has none."""
        return next((value for name, value in self.values if name == subset), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column(Config):
    """One number a picture.

    Attributes:
        metric: its name in `facerestore.metrics`.
        against: what the restored picture is compared with: nothing, the degraded or the sharp one.
        stands_in: a metric in whose place this one is measured where that one cannot be. It keeps its own
            name, and never enters a score.
    """

    metric: str
    against: Against = ""
    stands_in: str = ""

    @property
    def key(self) -> str:
        """Its name in tables: the metric's, with `-hq` where identity is compared with the sharp face."""
        return (
            f"{self.metric}-hq"
            if self.metric.startswith("identity") and self.against == "hq"
            else self.metric
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance(Config):
    """One number for all pictures: how far their statistics lie from others'.

    Attributes:
        metric: `fid` or `fid-clean`.
        against: the faces of FFHQ, by their published statistics, or the sharp pictures (`hq`).
    """

    metric: str
    against: Against = "ffhq"

    @property
    def key(self) -> str:
        """Its name in tables: `fid-ffhq`, `fid-hq`."""
        return f"{self.metric}-{self.against}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol(Config):
    """Everything that decides what an evaluation says; equal protocols have equal fingerprints.

    Raises:
        ConfigError: if thresholds name an unknown subset, or columns have one name.
    """

    name: str
    columns: tuple[Column, ...]
    distances: tuple[Distance, ...] = ()
    subsets: tuple[Subset, ...] = ()
    """Empty: all pictures are one set, whatever their folders."""
    side_px: int = 0
    """Of which restored and degraded pictures are, both ways; 0 for any."""
    thresholds: tuple[Thresholds, ...] = ()
    """The first decides, the others are counted as well."""
    judge: str = ""
    """The metric whose similarities the thresholds are for."""
    most_failures: int | None = None
    """A result with more faces below the threshold is rejected."""
    score: Literal["", "ntire"] = ""
    """The formula of the total."""
    match_mean_std: bool = False
    """Whether each restored picture is brought to the mean and spread of its sharp one before it is compared
    with it, as the scripts of VQFR do without saying so."""

    def __post_init__(self) -> None:
        known = {subset.name for subset in self.subsets}
        for thresholds in self.thresholds:
            unknown = [name for name, _ in thresholds.values if name not in known]
            if unknown:
                raise ConfigError(
                    f"thresholds {thresholds.name}: {', '.join(unknown)} is no subset of {self.name}; "
                    f"it has {', '.join(sorted(known)) or 'none'}"
                )
        keys = [column.key for column in (*self.columns, *self.distances)]
        if len(set(keys)) != len(keys):
            raise ConfigError(f"{self.name}: each column is named once, got {', '.join(keys)}")
        if not keys:
            raise ConfigError(f"{self.name}: nothing is measured; name at least one column")

    def with_thresholds(self, name: str, values: dict[str, float]) -> Self:
        """The same with other thresholds deciding, and its own counted beside.

        Raises:
            ConfigError: if one is for an unknown subset.
        """
        ours = Thresholds(name=name, values=tuple(values.items()))
        return replace(self, thresholds=(ours, *self.thresholds))

    def subset_of(self, folder: str) -> str | None:
        """The subset that a folder is, whatever its case; None if it is none of them."""
        return next((each.name for each in self.subsets if each.name.casefold() == folder.casefold()), None)


_COUNTS = {"CelebA": 100, "Wider-Test": 100, "LFW-Test": 100, "WebPhoto-Test": 100, "CelebChild-Test": 50}
_REPORT = Thresholds(
    name="report",
    values=(
        ("CelebA", 0.5), ("LFW-Test", 0.6), ("CelebChild-Test", 0.6), ("Wider-Test", 0.3),
        ("WebPhoto-Test", 0.3),
    ),
)  # fmt: skip
_CODE = Thresholds(
    name="code",
    values=(
        ("CelebA", 0.5), ("LFW-Test", 0.6), ("CelebChild-Test", 0.6), ("Wider-Test", 0.2),
        ("WebPhoto-Test", 0.25),
    ),
)  # fmt: skip


def _ntire(name: str, *thresholds: Thresholds) -> Protocol:
    return Protocol(
        name=name,
        columns=(
            Column(metric="niqe-pyiqa"),
            Column(metric="clipiqa"),
            Column(metric="maniqa"),
            Column(metric="musiq"),
            Column(metric="qalign"),
            Column(metric="identity-adaface", against="lq"),
            Column(metric="niqe-basicsr", stands_in="niqe-pyiqa"),
            Column(metric="identity-recognition", against="lq", stands_in="identity-adaface"),
            Column(metric="identity-description", against="lq", stands_in="identity-adaface"),
        ),
        distances=(Distance(metric="fid"),),
        subsets=tuple(Subset(name=subset, count=count) for subset, count in _COUNTS.items()),
        side_px=512,
        thresholds=thresholds,
        judge="identity-adaface",
        most_failures=10,
        score="ntire",
    )


NTIRE2026_REPORT = _ntire("ntire2026-report", _REPORT, _CODE)
"""NTIRE 2026 as its report and README state it; see `NTIRE2026_CODE` for what differs."""
NTIRE2026_CODE = _ntire("ntire2026-code", _CODE, _REPORT)
"""NTIRE 2026 as its published evaluation program counts: Wider 0.20 and WebPhoto 0.25, not 0.30."""
NTIRE2025 = _ntire("ntire2025", _REPORT, _CODE)
"""NTIRE 2025, whose report and program agree; the program of 2026 is counted beside."""
PAPERS = Protocol(
    name="papers",
    columns=(
        Column(metric="psnr", against="hq"),
        Column(metric="ssim", against="hq"),
        Column(metric="psnr-y", against="hq"),
        Column(metric="ssim-y", against="hq"),
        Column(metric="lpips-vgg", against="hq"),
        Column(metric="lpips-alex", against="hq"),
        Column(metric="dists", against="hq"),
        Column(metric="identity-arcface-degrees", against="hq"),
        Column(metric="identity-adaface", against="hq"),
        Column(metric="identity-recognition", against="hq", stands_in="identity-adaface"),
        Column(metric="identity-description", against="hq", stands_in="identity-adaface"),
        Column(metric="niqe-pyiqa"),
        Column(metric="niqe-basicsr"),
        Column(metric="musiq"),
        Column(metric="maniqa"),
        Column(metric="clipiqa"),
    ),
    distances=(Distance(metric="fid"), Distance(metric="fid", against="hq")),
)
"""What papers on face restoration print for CelebA-Test: each variant under its own name."""

PROTOCOLS = {each.name: each for each in (NTIRE2026_REPORT, NTIRE2026_CODE, NTIRE2025, PAPERS)}
"""Every protocol that has a name."""


def find_protocol(name: str) -> Protocol:
    """The protocol of a name, or of a file of one's own.

    A file is TOML: `base` is the protocol it starts from, other keys replace fields of it; `columns` is a
    list of metrics, each with what it is compared with after an `@`; `[subsets]` has counts, `[thresholds]`
    similarities.

        name = "ours"
        base = "ntire2026-code"
        columns = ["niqe-basicsr", "psnr@hq", "identity-adaface@lq"]
        distances = ["fid@hq"]
        [subsets]
        Portraits = 20
        [thresholds]
        Portraits = 0.5

    Raises:
        ConfigError: if there is no such protocol, or the file makes none; says what is wrong.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    if name.endswith(".toml"):
        return _read(Path(name))
    near = difflib.get_close_matches(name, PROTOCOLS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(PROTOCOLS)}."
    raise ConfigError(f"there is no protocol {name!r}; {hint} One of your own is a file ending in .toml")


def read_thresholds(path: Path, protocol: Protocol) -> Protocol:
    """The protocol with the thresholds of a TOML file deciding: lines `SUBSET = SIMILARITY`.

    Raises:
        ConfigError: if the file cannot be read, or names a subset that the protocol has not.
    """
    return protocol.with_thresholds(path.stem, _numbers(path, "thresholds", _toml(path)))


_FIELDS = frozenset(
    {"name", "base", "columns", "distances", "subsets", "thresholds", "side_px", "judge", "most_failures",
     "match_mean_std"}
)  # fmt: skip


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML ({error})") from error


def _numbers(path: Path, what: str, table: Any) -> dict[str, float]:
    numbers = cast("dict[str, Any]", table) if isinstance(table, dict) else {}
    if not numbers or not all(type(value) in (int, float) for value in numbers.values()):
        raise ConfigError(f"{path}: {what} are lines SUBSET = NUMBER, got {table!r}")
    return {name: float(value) for name, value in numbers.items()}


def _read(path: Path) -> Protocol:
    table = _toml(path)
    unknown = sorted(set(table) - _FIELDS)
    if unknown:
        raise ConfigError(f"{path}: {', '.join(unknown)} is no field; there are {', '.join(sorted(_FIELDS))}")
    given: dict[str, Any] = {"name": table.pop("name", path.stem)}
    base = find_protocol(str(table.pop("base"))) if "base" in table else None
    for field, kind in (("columns", Column), ("distances", Distance)):
        if field in table:
            given[field] = tuple(_column(path, kind, text) for text in table.pop(field))
    if "subsets" in table:
        counts = _numbers(path, "subsets", table.pop("subsets"))
        given["subsets"] = tuple(Subset(name=name, count=int(count)) for name, count in counts.items())
        given["thresholds"] = ()  # those of the base are for its own subsets
    if "thresholds" in table:
        values = _numbers(path, "thresholds", table.pop("thresholds"))
        given["thresholds"] = (Thresholds(name=str(given["name"]), values=tuple(values.items())),)
    for field, kind in (("side_px", int), ("judge", str), ("most_failures", int), ("match_mean_std", bool)):
        if field in table and type(table[field]) is not kind:
            raise ConfigError(f"{path}: {field} is of type {kind.__name__}, got {table[field]!r}")
    given |= table
    if base is None:
        whole: dict[str, Any] = {"columns": (), **given}
        return Protocol(**whole)
    # A score is a sum over fixed columns: with others it is none.
    score = "" if "columns" in given or "distances" in given else base.score
    return replace(base, score=score, **given)


def _column(path: Path, kind: Any, text: Any) -> Any:
    metric, _, against = str(text).partition("@")
    if against not in ("", "lq", "hq", "ffhq"):
        raise ConfigError(f"{path}: {text!r} is compared with {against!r}; there are @lq, @hq and @ffhq")
    return kind(metric=metric, **({"against": against} if against else {}))
