"""Leaves out faces by what was measured of them, and says of each why."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from facerestore.core.config import Config
from facerestore.core.errors import ConfigError
from facerestore.data.index import Index, Removed, require_some
from facerestore.data.measures import Measures


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits(Config):
    """What a face must be; None does not ask.

    Attributes:
        min_face_px: pixels of the picture that a crop by the FFHQ template covers, a side.
        max_blur_px: width of the edges in a crop of 512 px: untouched faces have 1.5, ones that were enlarged
            from 256 px 2, from 128 px 3.
        max_grain: noise of the crop in units of [0,1]: untouched faces have 0.003 to 0.013.
        max_yaw_deg: to either side; an estimate, some 10 degrees off for faces with a long or short nose.
        max_pitch_deg: up or down, likewise.
        max_roll_deg: to either side; aligned faces have none.
        one_face: whether a picture with several faces is left out.
    """

    min_face_px: float | None = None
    max_blur_px: float | None = None
    max_grain: float | None = None
    max_yaw_deg: float | None = None
    max_pitch_deg: float | None = None
    max_roll_deg: float | None = None
    one_face: bool = False

    def __post_init__(self) -> None:
        for name in (
            "min_face_px",
            "max_blur_px",
            "max_grain",
            "max_yaw_deg",
            "max_pitch_deg",
            "max_roll_deg",
        ):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}, a number above 0 or none expected")


def within(index: Index, measured: Mapping[str, Measures], limits: Limits) -> Index:
    """Keep the entries within the limits, and name the others with the first limit that they miss.

    A picture without a face is always left out.

    Args:
        index: the entries.
        measured: by key, of all of them; see `measure_all`.
        limits: what a face must be.

    Raises:
        ConfigError: if an entry was not measured.
        EmptyDataset: if nothing is left.
    """
    removed: list[Removed] = []
    for entry in index.entries:
        if entry.key not in measured:
            raise ConfigError(f"{entry.key} was not measured; call measure_all with the same entries")
        fault = _fault(measured[entry.key], limits)
        if fault is not None:
            removed.append(Removed(entry.key, *fault))
    return require_some(index.without(removed), "within the limits")


def _fault(values: Measures, limits: Limits) -> tuple[str, str] | None:
    """Reason and detail."""
    if values.faces == 0:
        return "no face", "none was found"
    if limits.one_face and values.faces > 1:
        return "several faces", f"{values.faces} were found"
    if limits.min_face_px is not None and values.face_px < limits.min_face_px:
        return "small face", f"{values.face_px:.0f} px, at least {limits.min_face_px:g} asked for"
    upper = (
        ("blurred", values.blur_px, limits.max_blur_px, "px of edge"),
        ("noisy", values.grain, limits.max_grain, "of grain"),
        ("turned aside", abs(values.yaw_deg), limits.max_yaw_deg, "degrees"),
        ("turned up or down", abs(values.pitch_deg), limits.max_pitch_deg, "degrees"),
        ("askew", abs(values.roll_deg), limits.max_roll_deg, "degrees"),
    )
    for reason, value, limit, unit in upper:
        if limit is not None and value > limit:
            return reason, f"{value:.3g} {unit}, at most {limit:g} asked for"
    return None
