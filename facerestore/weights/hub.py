"""One file of a hub: what the hub says of it, and its bytes; a cut download goes on where it stopped.

`hf_hub_download` throws away what a killed download had got (huggingface_hub 2.4), therefore the parts that
it is made of are used here: the metadata request, and the transfer with a range.
"""

import contextlib
import io
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from facerestore.core.errors import ConfigError, DownloadFailed

logger = logging.getLogger(__name__)

OFFLINE_VARIABLES = ("FACERESTORE_OFFLINE", "HF_HUB_OFFLINE")
_GONE = {401: "gone, or asks for a login", 403: "closed", 404: "gone", 410: "gone", 451: "closed by law"}
_TRANSFER = "huggingface_hub.http_get"  # name of the bar that the client would draw beside ours


class SourceGone(Exception):
    """A hub has no such file, or not for this user: another source may have it."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """What a hub says of a file.

    Attributes:
        name: file name without folders.
        url: where its bytes are.
        etag: names its content; its sha256 where the hub keeps it as a large file.
        size: in bytes; None if the hub does not say.
    """

    name: str
    url: str
    etag: str
    size: int | None

    @property
    def sha256(self) -> str:
        """The hash that the hub promises, or nothing."""
        is_hash = len(self.etag) == 64 and all(c in "0123456789abcdef" for c in self.etag)
        return self.etag if is_hash else ""


def offline_variable() -> str | None:
    """The environment variable that forbids connections, if one is set."""
    yes = ("1", "ON", "YES", "TRUE")
    return next((name for name in OFFLINE_VARIABLES if os.environ.get(name, "").upper() in yes), None)


def hub_endpoint(endpoint: str | None) -> str:
    """The hub to ask: the one given, that of `$HF_ENDPOINT`, or the public one.

    Raises:
        ConfigError: if it is no web address.
    """
    chosen = (endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    if not chosen.startswith(("http://", "https://")):
        raise ConfigError(f"{chosen!r} is no hub: an address begins with https://. Correct HF_ENDPOINT")
    return chosen


def look_up(repository: str, path: str, *, endpoint: str) -> HubFile:
    """Ask what a file is, without its bytes.

    Raises:
        DownloadFailed: if there is no answer.
        SourceGone: if the hub has no such file, or not for this user.
    """
    from huggingface_hub import get_hf_file_metadata

    url = f"{endpoint}/{repository}/resolve/main/{quote(path)}"
    with _named(url), _discreet():
        found = get_hf_file_metadata(url)
    if not found.etag:
        raise DownloadFailed(f"{url} answers without an ETag, so it is no hub; correct HF_ENDPOINT")
    return HubFile(path.rpartition("/")[2], url, found.etag, found.size)


def download(file: HubFile, target: Path, on_size: Callable[[int], None]) -> None:
    """Bring a file's bytes, going on behind those that are there.

    Args:
        file: see `look_up`.
        target: file of this content alone; what a cut download leaves in it is where the next one begins.
        on_size: told how many bytes of it are there, again and again.

    Raises:
        DownloadFailed: if the connection is lost and brings nothing more when it is tried again.
        SourceGone: if the hub no longer has it.
    """
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    while True:
        there = _length(target)
        if there and (file.size is None or there > file.size):
            target.unlink()
            there = 0
        try:
            with _named(file.url), _discreet(), _Counted(target, on_size) as stream:
                headers = build_hf_headers()
                http_get(file.url, stream, resume_size=there, headers=headers, expected_size=file.size)
                stream.flush()
                os.fsync(stream.fileno())
        except DownloadFailed:
            if _length(target) <= there:
                raise
            logger.info("%s was cut at %d bytes and goes on", file.url, _length(target))
        else:
            return


class _Counted(io.BufferedWriter):
    """A file to append to that tells its size after each write."""

    def __init__(self, path: Path, on_size: Callable[[int], None]) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._on_size = on_size

    def write(self, buffer: Any, /) -> int:
        written = super().write(buffer)
        self._on_size(self.tell())
        return written


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextlib.contextmanager
def _discreet() -> Iterator[None]:
    """Keep the client from drawing a bar, and from telling or asking a hub more than the file needs.

    To say which program it serves, it would ask the public hub for a list of programs, whatever the endpoint.
    """
    from huggingface_hub import constants, utils

    told, shown = constants.HF_HUB_DISABLE_TELEMETRY, not utils.are_progress_bars_disabled(_TRANSFER)
    constants.HF_HUB_DISABLE_TELEMETRY = True
    if shown:
        utils.disable_progress_bars(_TRANSFER)
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = told
        if shown:
            utils.enable_progress_bars(_TRANSFER)


@contextlib.contextmanager
def _named(url: str) -> Iterator[None]:
    """Turn what the client raises into our errors."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.errors import HTTPError as TransferError  # pyright: ignore[reportPrivateImportUsage]

    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in _GONE:
            raise SourceGone(f"{_GONE[status]} ({status})") from error
        raise DownloadFailed(f"{url} answers with status {status}; try again later") from error
    except (TransferError, OSError) as error:  # of httpx and of requests: the client may use either
        raise DownloadFailed(
            f"{url} does not come: {str(error) or type(error).__name__}. Check the connection, or set "
            "HF_ENDPOINT to a hub that can be reached; the same command goes on from here"
        ) from error
