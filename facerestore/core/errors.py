"""Every error that the library raises on purpose.

Each class also subclasses the builtin that a caller would expect, so `except ValueError` keeps working.
A message says what was expected, what came, and what to do next.
"""

from collections.abc import Mapping, Sequence


class FaceRestoreError(Exception):
    """Root of the tree: catch this to catch everything that the library reports."""


class ConfigError(FaceRestoreError, ValueError):
    """A setting is unknown or has a bad value."""


class WiringError(FaceRestoreError, ValueError):
    """A stage reads what no stage before it has written."""


class ShapeError(FaceRestoreError, ValueError):
    """A tensor has the wrong shape.

    Attributes:
        expected: what was asked for, in words.
        actual: the shape that came.
    """

    def __init__(self, expected: str, actual: Sequence[int], hint: str = "") -> None:
        self.expected = expected
        self.actual = tuple(actual)
        super().__init__(f"expected {expected}, got shape {self.actual}{'. ' + hint if hint else ''}")


class RangeError(FaceRestoreError, ValueError):
    """Values lie outside their range, or are not finite.

    Attributes:
        low: smallest value found.
        high: largest value found.
    """

    def __init__(self, message: str, low: float, high: float) -> None:
        self.low = low
        self.high = high
        super().__init__(message)


class UnsupportedDtype(FaceRestoreError, TypeError):
    """A network cannot run, or a device cannot compute, in the dtype asked for."""


class DeviceError(FaceRestoreError, RuntimeError):
    """The device asked for is not there."""


class MissingDependency(FaceRestoreError, ImportError):
    """A package that is needed for this is not installed, or not in a version that works."""


class WeightsError(FaceRestoreError):
    """Something is wrong with a weight file."""


class WeightsNotFound(WeightsError, FileNotFoundError):
    """A weight is in none of the places where it is looked for."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ChecksumMismatch(WeightsError, ValueError):
    """A weight file is not the file that the manifest describes."""


class LicenceNotAccepted(WeightsError, PermissionError):
    """Weights are under a licence that has to be accepted before they are fetched."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class DownloadFailed(WeightsError, ConnectionError):
    """A weight could not be fetched: no connection, or every source is gone."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class OfflineMode(DownloadFailed):
    """Something was to be fetched, and an environment variable forbids it."""


class KeyMismatch(WeightsError, ValueError):
    """A checkpoint does not fit its network.

    Attributes:
        missing: keys that the network has and the file lacks.
        unexpected: keys that the file has and the network lacks.
        misshapen: `key: expected shape, actual shape` lines.
    """

    def __init__(
        self,
        source: str,
        missing: Sequence[str],
        unexpected: Sequence[str],
        misshapen: Sequence[str],
        hint: str = "",
    ) -> None:
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.misshapen = tuple(misshapen)
        parts = [
            f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for what, keys in (
                ("missing", self.missing),
                ("unexpected", self.unexpected),
                ("misshapen", self.misshapen),
            )
            if keys
        ]
        super().__init__(
            f"{source} does not fit its network: {'; '.join(parts)}. Nothing was loaded."
            f"{' ' + hint if hint else ''}"
        )


class ImageError(FaceRestoreError, OSError):
    """A picture cannot be used; the message names the file."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class ImageUnreadable(ImageError):
    """The file is missing, empty, truncated, or no picture at all."""


class ImageTooLarge(ImageError):
    """The picture has more pixels than the limit, which can be raised."""


class UnsupportedImage(ImageError):
    """A picture of a kind that the installed packages cannot read or write."""


class DataError(FaceRestoreError, ValueError):
    """A data set, or what belongs to it, cannot be used as it is; the message names the file."""


class EmptyDataset(DataError):
    """A data set has no usable picture; the message says what was skipped, and why."""


class OutputError(FaceRestoreError, OSError):
    """An output cannot be written: no permission, a full disk, a name that is taken."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class OutputLocked(OutputError):
    """Another run is writing into the same folder."""


class TrainingError(FaceRestoreError):
    """A training run cannot go on."""


class TrainingDiverged(TrainingError, ArithmeticError):
    """A term of the objective is not finite.

    Attributes:
        term: name of the term.
        step: number of the optimiser's step, where it is known.
    """

    def __init__(self, term: str, step: int | None = None) -> None:
        self.term = term
        self.step = step
        when = "" if step is None else f" at step {step}"
        super().__init__(
            f"the loss term {term!r} is not finite{when}; lower the learning rate or the term's weight, or "
            "look at the pictures of that step. What was saved before it is intact"
        )


class ResumeMismatch(TrainingError, ValueError):
    """A run was begun with other settings than those it is to go on with.

    Attributes:
        fields: what differs by name, as it was saved and as it is now.
    """

    def __init__(self, folder: object, fields: Mapping[str, tuple[object, object]]) -> None:
        self.fields = dict(fields)
        lines = "; ".join(f"{name} was {was!r} and is {now!r}" for name, (was, now) in self.fields.items())
        super().__init__(
            f"{folder} was begun with other settings: {lines}. Set them back, or train into another folder"
        )
