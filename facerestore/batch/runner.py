"""Restore many pictures into a folder: resumable, whole or not at all, writing while the network works."""

import errno
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, get_args

from facerestore.batch.inputs import Format, Item, plan
from facerestore.batch.lock import lock
from facerestore.batch.manifest import Manifest, Row, digest
from facerestore.core.errors import ConfigError, FaceRestoreError, OutputError
from facerestore.imaging.read import DEFAULT_MAX_PIXELS
from facerestore.imaging.whole import whole_file
from facerestore.imaging.write import write_image
from facerestore.pipeline import Pipeline, RestorationOptions
from facerestore.restoration import FaceResult, Failure, Restoration

NoFace = Literal["copy", "skip"]

_WAITING = 2  # results that may wait for the disk: the network never idles, and memory stays bounded
_FATAL = frozenset({errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO})
_FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """What became of one picture.

    Attributes:
        item: the picture.
        row: its line in the manifest.
        path: the output, None where nothing was written.
        restoration: the result, None where the picture failed or was done by an earlier run.
        earlier: whether an earlier run did it.
    """

    item: Item
    row: Row
    path: Path | None
    restoration: Restoration | None
    earlier: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a run did.

    Attributes:
        counts: pictures by status: `restored`, `copied`, `no face`, `failed`.
        earlier: how many of them an earlier run had done.
        seconds: wall time.
    """

    counts: Mapping[str, int]
    earlier: int
    seconds: float

    @property
    def failed(self) -> int:
        """Pictures that could not be restored."""
        return self.counts.get("failed", 0)


def restore_folder(
    pipe: Pipeline,
    inputs: Iterable[str | os.PathLike[str]],
    output_dir: str | os.PathLike[str],
    *,
    seed: int = 0,
    options: RestorationOptions | None = None,
    format: Format = "same",
    no_face: NoFace = "copy",
    strip_metadata: bool = False,
    overwrite: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    on_start: Callable[[Sequence[Item]], None] | None = None,
    on_item: Callable[[ItemResult], None] | None = None,
) -> Summary:
    """Restore files, folders and glob patterns into `output_dir`, with one manifest line a picture.

    Pictures that the manifest says are done, with the same input, recipe, weights, seed, options and format,
    and whose output is still intact, are not done again; everything else is. Interrupt or kill it and call it
    again: nothing is lost but the picture in hand. A picture that fails is reported and the others are done.
    A picture in which no face was restored is copied byte for byte where the format allows it.

    Args:
        pipe: what restores.
        inputs: files, folders (recursive, tree kept) and patterns; see `batch.inputs.plan` for names.
        output_dir: made if needed. A file in it that no run wrote is not replaced.
        seed: of the noise of generative stages.
        options: what to restore; by default every face, at full strength, background kept.
        format: `same` keeps each picture's format where it can be written, else PNG.
        no_face: what happens to a picture without a face: `copy` it, or `skip` it.
        strip_metadata: leave EXIF, XMP and comments out; the colour profile stays.
        overwrite: do everything again, and replace files that no run wrote.
        max_pixels: a picture with more is refused by name before it is decoded.
        on_start: called once, with the pictures that are to be done.
        on_item: called for every picture in turn, those of earlier runs first.

    Raises:
        ConfigError: if there is no picture, or an output would replace an input.
        OutputLocked: if another run writes into the folder.
        OutputError: if the folder cannot be written, or the disk is full; what was done stays done.
    """
    for name, value, choices in (
        ("format", format, get_args(Format)),
        ("no_face", no_face, get_args(NoFace)),
    ):
        if value not in choices:
            raise ConfigError(f"{name} is one of {', '.join(choices)}, got {value!r}")
    started = time.perf_counter()
    options = options or RestorationOptions()
    folder = Path(output_dir)
    counts: Counter[str] = Counter()
    with staging_folder(folder) as staging, Manifest(folder) as manifest:
        items = plan(inputs, folder, format, earlier_outputs=manifest.outputs)
        writer = _Writer(
            folder=folder,
            staging=staging,
            manifest=manifest,
            run=_run(pipe, seed, options, format, strip_metadata),
            changes_photo=options.upscale != 1 or options.background != "keep",
            format=format,
            no_face=no_face,
            strip_metadata=strip_metadata,
            overwrite=overwrite,
        )
        todo = tuple(item for item in items if not writer.is_done(item))
        if on_start is not None:
            on_start(todo)
        to_do = frozenset(item.output for item in todo)
        earlier = (writer.earlier(item) for item in items if item.output not in to_do)
        restore = partial(pipe.restore_many, seed=seed, max_pixels=max_pixels, **asdict(options))
        with closing(_work(restore, todo, writer)) as work:
            for result in chain(earlier, work):
                counts[result.row["status"]] += 1
                if on_item is not None:
                    on_item(result)
    return Summary(counts=counts, earlier=len(items) - len(todo), seconds=time.perf_counter() - started)


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """Make and lock the output folder; yield an empty folder in it, for outputs that are not whole yet."""
    staging = folder / ".facerestore.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror}; choose another output folder") from error
    with lock(folder / ".facerestore.lock"):
        shutil.rmtree(staging, ignore_errors=True)
        try:
            staging.mkdir()
        except OSError as error:
            raise OutputError(f"{folder}: {error.strerror}; choose another output folder") from error
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _work(
    restore: Callable[[Iterable[Path]], Iterator[Restoration | Failure]],
    todo: Sequence[Item],
    writer: "_Writer",
) -> Generator[ItemResult, None, None]:
    """Restore `todo` in order; a thread writes each result while the network works on the next."""
    foreign = frozenset(item.output for item in todo if writer.is_foreign(item))
    for item in todo:
        if item.output in foreign:
            target = writer.folder / item.output
            advice = "use --overwrite or another output folder"
            yield writer.fail(item, OutputError(f"{target} is there already, and no run wrote it; {advice}"))
    free = [item for item in todo if item.output not in foreign]
    restored = restore(item.source for item in free)
    waiting: deque[Future[ItemResult]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="facerestore-write") as thread:
        for item, result in zip(free, restored, strict=True):
            waiting.append(thread.submit(writer.write, item, result))
            if len(waiting) > _WAITING:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _run(
    pipe: Pipeline, seed: int, options: RestorationOptions, format: Format, strip_metadata: bool
) -> dict[str, Any]:
    """What an output depends on besides its input."""
    return dict(pipe.provenance(seed, options)) | {"format": format, "strip_metadata": strip_metadata}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    """Turns results into files and manifest lines."""

    folder: Path
    staging: Path
    manifest: Manifest
    run: Mapping[str, Any]
    changes_photo: bool  # whether more than faces is restored
    format: Format
    no_face: NoFace
    strip_metadata: bool
    overwrite: bool

    def is_done(self, item: Item) -> bool:
        return not self.overwrite and self.manifest.is_done(
            str(item.output), item.source, self.run, keeps_faceless=self.no_face == "copy"
        )

    def is_foreign(self, item: Item) -> bool:
        """Whether a file stands where the output goes that no run wrote."""
        target = self.folder / item.output
        return not self.overwrite and os.path.lexists(target) and not self.manifest.is_ours(str(item.output))

    def earlier(self, item: Item) -> ItemResult:
        return self._result(item, self.manifest.row(str(item.output)), earlier=True)

    def write(self, item: Item, result: Restoration | Failure) -> ItemResult:
        """Write one result; what cannot be written is a failure of this picture, a full disk one of the run.

        Raises:
            OutputError: if nothing more can be written.
        """
        if isinstance(result, Failure):
            return self.fail(item, result.error)
        started = time.perf_counter()
        changed = self.changes_photo or any(face.status == "restored" for face in result.faces)
        status = "no face" if not result.faces else "restored" if changed else "copied"
        staged = self.staging / f"picture{item.output.suffix}"
        try:
            row = _row(item, status, self.run) | _facts(result)
            if status == "no face" and self.no_face == "skip":
                self.manifest.append(row)
                return self._result(item, row, result)
            if not changed and not self.strip_metadata and self._same_format(item, result):
                _copy(item.source, staged)
            else:
                write_image(staged, result.photo, like=result.photo, strip_metadata=self.strip_metadata)
            written = digest(staged)
            row |= {"output_sha256": written.sha256, "output_bytes": written.bytes}
            row["seconds"] = dict(row["seconds"]) | {"write": round(time.perf_counter() - started, 4)}
            # The line comes first: a run killed between the two finds a line without its file, and does the
            # picture again; the other way round it would find a file that nobody seems to have written.
            target = self.folder / item.output
            target.parent.mkdir(parents=True, exist_ok=True)
            self.manifest.append(row)
            staged.replace(target)
        except (FaceRestoreError, OSError) as error:
            if is_fatal(error):
                raise OutputError(
                    f"{self.folder}: {reason(error)} while writing the result of {item.source}; "
                    "what is done stays done: make room and run the same command again"
                ) from error
            return self.fail(item, error)
        return self._result(item, row, result)

    def fail(self, item: Item, error: Exception) -> ItemResult:
        row = _row(item, "failed", self.run) | {"error": str(error), "error_kind": type(error).__name__}
        self.manifest.append(row)
        return self._result(item, row)

    def _result(
        self, item: Item, row: Row, restoration: Restoration | None = None, *, earlier: bool = False
    ) -> ItemResult:
        path = self.folder / item.output if row["output_sha256"] else None
        return ItemResult(item=item, row=row, path=path, restoration=restoration, earlier=earlier)

    def _same_format(self, item: Item, result: Restoration) -> bool:
        if self.format == "same":
            return item.output.suffix == item.source.suffix
        return result.photo.format == _FORMATS[self.format]


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as old, whole_file(target) as new:
        shutil.copyfileobj(old, new)


def _row(item: Item, status: str, run: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the manifest, as yet without faces, output or error."""
    sha256, size = None, None
    with suppress(OSError):
        sha256, size = digest(item.source)
    return {
        "source": str(item.source),
        "input_sha256": sha256,
        "input_bytes": size,
        "output": str(item.output),
        "output_sha256": None,
        "output_bytes": None,
        "status": status,
        "faces": [],
        "notes": [],
        "seconds": {},
        "error": None,
        "error_kind": None,
        "run": dict(run),
    }


def _facts(result: Restoration) -> dict[str, Any]:
    return {
        "faces": [_face(face) for face in result.faces],
        "notes": list(result.notes),
        "seconds": {part: round(seconds, 4) for part, seconds in result.seconds.items()},
    }


def _face(face: FaceResult) -> dict[str, Any]:
    def plain(value: float | None) -> float | None:
        return None if value is None else round(float(value), 5)

    return {
        "index": face.index,
        "box": [plain(v) for v in face.box],
        "landmarks": [[plain(x), plain(y)] for x, y in face.landmarks],
        "confidence": plain(face.confidence),
        "status": face.status,
        "size_px": plain(face.size_px),
        "roll_deg": plain(face.roll_deg),
        "facts": {name: plain(value) for name, value in face.facts.items()},
        "identity_distance": plain(face.identity_distance),
        "identity_similarity": plain(face.identity_similarity),
    }


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def is_fatal(error: BaseException) -> bool:
    """Whether nothing more can be written: a full disk, a read-only one."""
    return any(isinstance(cause, OSError) and cause.errno in _FATAL for cause in _causes(error))


def reason(error: BaseException) -> str:
    """What the system says of a fatal error."""
    return next(
        cause.strerror or ""
        for cause in _causes(error)
        if isinstance(cause, OSError) and cause.errno in _FATAL
    )
