"""Files that appear whole or not at all."""

import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from facerestore.core.errors import OutputError


class _Unnumbered(io.FileIO):
    """Hides its descriptor: Pillow would write through it, and miss that a full disk took only a part."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Give a stream, and put what is written into it at `path` when the block ends without an exception.

    Until then it lies beside, as `.facerestore-*.part`, and is removed if anything goes wrong. It is on the
    disk before it takes the name. It gets the permissions that any new file gets.

    Raises:
        OutputError: if the folder is missing or closed, the name is taken by a folder, or the disk is full.
    """
    target = Path(path)
    if target.is_dir():
        raise OutputError(f"{target}: is a folder, a file cannot take its name")
    part = target.with_name(f".facerestore-{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        number = os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o666)
        try:
            with io.BufferedRandom(_Unnumbered(number, "w+b", closefd=False)) as stream:
                yield stream
                stream.flush()
                os.fsync(number)
        finally:
            os.close(number)
        part.replace(target)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        # Only what the system says needs the name of the file; other errors stand for themselves.
        if isinstance(error, OSError) and error.errno is not None:
            raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
        raise
