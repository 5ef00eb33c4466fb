"""Fetches weights from a hub into the user's cache, whole or not at all.

Nothing is fetched unless it is asked for by name. What was cut is kept in `.incoming` below the cache folder
and goes on with the next call. Importing this module loads neither torch nor the hub's client.
"""

import contextlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from facerestore.core.errors import (
    ChecksumMismatch,
    DownloadFailed,
    FaceRestoreError,
    OfflineMode,
    OutputError,
    WeightsError,
    WeightsNotFound,
)
from facerestore.weights.folders import (
    INDEX_ENDING,
    STEMS,
    TOKENIZER_EXTRAS,
    VOCABULARIES,
    require_complete,
    tensor_names,
    weight_map,
)
from facerestore.weights.hashes import sha256_of
from facerestore.weights.hub import HubFile, SourceGone, download, hub_endpoint, look_up, offline_variable
from facerestore.weights.licences import require_acceptance
from facerestore.weights.spec import WeightSpec
from facerestore.weights.store import WeightStore, cache_folder

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Told the weight's name, the bytes that are there, and the bytes in total."""


def fetch(
    names: Iterable[str],
    *,
    accept_licence: bool = False,
    endpoint: str | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Path]:
    """Fetch weights that are not there yet, from the first of their sources that has them.

    A file whose sha256 is known, here or to the hub, must have it; tensors must be readable, and a folder of
    diffusers complete. Pickles are converted to safetensors, and nothing of them is executed.

    Args:
        names: of weights; those that are there already are not fetched.
        accept_licence: accept the licences of those that ask for it, for good.
        endpoint: the hub; by default that of `$HF_ENDPOINT`, or the public one.
        on_progress: see `Progress`.

    Returns:
        Where each weight is.

    Raises:
        ChecksumMismatch: if a file is not the one that it should be.
        ConfigError: if a name is unknown, or the endpoint no address.
        DownloadFailed: if there is no connection, or no source has it; names every source.
        LicenceNotAccepted: if a licence is to be accepted first; then nothing was fetched.
        OfflineMode: if `FACERESTORE_OFFLINE` or `HF_HUB_OFFLINE` is set; then no connection was tried.
        OutputError: if it cannot be written.
        WeightsError: if what came is damaged, or several weights failed; then names each.
        WeightsNotFound: if no hub has it.
    """
    store = WeightStore()
    found: dict[str, Path | None] = {name: _found(store, name) for name in names}
    missing = [store.spec(name) for name, path in found.items() if path is None]
    if missing:
        require_acceptance([spec for spec in missing if spec.hub], accept=accept_licence)
        _require_online(missing)
        hub = hub_endpoint(endpoint)
        failures: list[FaceRestoreError] = []
        for spec in missing:
            try:
                found[spec.name] = _fetched(spec, hub, on_progress or _silent)
            except FaceRestoreError as error:
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            lines = "".join(f"\n{error}" for error in failures)
            raise WeightsError(f"{len(failures)} of {len(missing)} weights did not come:{lines}")
    return {name: path for name, path in found.items() if path is not None}


def _found(store: WeightStore, name: str) -> Path | None:
    try:
        return store.find(name)
    except WeightsNotFound:
        return None


def _silent(name: str, there: int, total: int) -> None:
    """Report nothing."""


def _require_online(missing: list[WeightSpec]) -> None:
    variable = offline_variable()
    if variable is not None:
        files = ", ".join(spec.file for spec in missing)
        raise OfflineMode(
            f"{variable} is set, so no connection was tried. Unset it to fetch {files}, or bring what was "
            f"fetched on another machine into {cache_folder()}"
        )


def _fetched(spec: WeightSpec, endpoint: str, on_progress: Progress) -> Path:
    """Bring one weight into its place.

    Raises:
        DownloadFailed: if no source has it.
        OutputError: if it cannot be written.
        WeightsNotFound: if it has no source on a hub.
    """
    target = cache_folder() / spec.file
    if not spec.hub:
        raise WeightsNotFound(f"{spec.name} is on no hub. Its source: {spec.source}. Put it at {target}")
    with _staging(spec.name) as staging:
        if (target / spec.settings if spec.is_folder else target).is_file():
            return target  # another process brought it while this one waited
        gone: list[str] = []
        for source in spec.hub:
            try:
                made = _from_source(spec, source, endpoint, staging, on_progress)
            except SourceGone as error:
                logger.info("%s: %s", source, error)
                gone.append(f"\n  {source}: {error}")
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            made.replace(target)
            shutil.rmtree(staging)
            return target
    raise DownloadFailed(
        f"{spec.name} is at none of its sources on {endpoint}:{''.join(gone)}\nBring it to {target} "
        f"from elsewhere, or give its path: --weights {spec.name}=PATH. Its source: {spec.source}"
    )


@contextlib.contextmanager
def _staging(name: str) -> Iterator[Path]:
    """The folder for a weight that is on its way, for one process at a time."""
    from huggingface_hub.utils import WeakFileLock

    folder = cache_folder() / ".incoming" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(folder.with_name(f"{folder.name}.lock")):
            folder.mkdir(exist_ok=True)  # who held the lock before may have removed it
            yield folder
    except FaceRestoreError:
        raise
    except OSError as error:
        raise OutputError(f"{name} cannot be written into {cache_folder()}: {error}") from error


def _from_source(spec: WeightSpec, source: str, endpoint: str, staging: Path, on_progress: Progress) -> Path:
    """What `spec.file` is to be, complete and verified, in `staging`.

    Raises:
        SourceGone: if the source lacks a part of it.
    """
    repository, _, path = source.partition(":")
    whole = staging / f"whole{Path(spec.file).suffix}"
    if not spec.is_folder:
        file = look_up(repository, path, endpoint=endpoint)
        (came,) = _brought(spec, [file], staging, on_progress)
        if came.suffix == whole.suffix and not spec.take:
            came.replace(whole)
        else:
            from facerestore.weights.convert import convert

            whole.unlink(missing_ok=True)
            convert(came, whole, take=spec.take)
        _verify(whole, spec.sha256)
        return whole
    parts = _brought(spec, _folder_on_hub(spec, repository, path, endpoint, staging), staging, on_progress)
    require_complete(parts)
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    for part in parts:
        part.replace(whole / part.name)
    return whole


def _folder_on_hub(
    spec: WeightSpec, repository: str, path: str, endpoint: str, staging: Path
) -> list[HubFile]:
    """The files of a folder: its settings, then the tensors of a network or what a tokenizer has."""

    def at(name: str) -> HubFile:
        return look_up(repository, path + name, endpoint=endpoint)

    files = [at(spec.settings)]
    if spec.form == "tokenizer":
        for name in (*sum(VOCABULARIES, ()), *TOKENIZER_EXTRAS):
            with contextlib.suppress(SourceGone):  # no tokenizer has all of them
                files.append(at(name))
        there = {file.name for file in files}
        if not any(there.issuperset(names) for names in VOCABULARIES):
            raise SourceGone("has no vocabulary")
        return files
    stem = STEMS[spec.form]
    try:
        return [*files, at(f"{stem}.safetensors")]
    except SourceGone:
        index = at(stem + INDEX_ENDING)
        (came,) = _brought(spec, [index], staging, _silent)
        return [*files, index, *(at(name) for name in sorted(set(weight_map(came).values())))]


def _brought(spec: WeightSpec, files: list[HubFile], staging: Path, on_progress: Progress) -> list[Path]:
    """Download files, each verified, each in a folder that is named for its content."""
    paths = [staging / re.sub(r"\W", "", file.etag)[:64] / file.name for file in files]
    there = [path.stat().st_size if path.exists() else 0 for path in paths]
    total = sum(file.size or 0 for file in files)
    _require_space(staging, total - sum(there))

    def report(place: int, size: int) -> None:
        there[place] = size
        on_progress(spec.name, sum(there), total)

    for place, (file, path) in enumerate(zip(files, paths, strict=True)):
        path.parent.mkdir(exist_ok=True)
        download(file, path, lambda size, place=place: report(place, size))
        _verify(path, file.sha256)
        report(place, path.stat().st_size)
    return paths


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are still to come; make room, "
            "or set XDG_CACHE_HOME to a larger place"
        )


def _verify(path: Path, sha256: str) -> None:
    """Compare a file with its hash where there is one, and with its kind; remove it if it is another.

    Raises:
        ChecksumMismatch: if the hash differs.
        WeightsError: if it is no JSON object or no tensors, but should be.
    """
    try:
        if sha256:
            _require_hash(path, sha256)
        if path.suffix == ".json":
            _json(path)
        elif path.suffix == ".safetensors":
            tensor_names(path)
    except WeightsError:
        path.unlink()
        raise


def _require_hash(path: Path, sha256: str) -> None:
    digest = sha256_of(path)
    if digest != sha256:
        raise ChecksumMismatch(
            f"{path.name} came damaged or is another file: its sha256 is {digest[:16]}..., and should be "
            f"{sha256[:16]}.... It was removed; fetch it again"
        )


def _json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path.name} came damaged: it is no JSON ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path.name} came damaged: it is no JSON object; fetch it again")
    return content
