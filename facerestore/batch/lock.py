"""One run per output folder."""

import contextlib
import os
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from facerestore.core.errors import OutputError, OutputLocked

if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # beyond the text, which others may then read
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error

else:
    import fcntl

    def _take(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def lock(path: Path) -> Generator[None, Any, None]:
    """Hold the lock file at `path` until the block ends.

    The operating system drops the lock when its holder dies, however it dies, so no lock is ever stale. The
    text of the file only says who holds it.

    Raises:
        OutputLocked: if another run holds it; the message names that run.
        OutputError: if the file cannot be made.
    """
    try:
        descriptor = _open_locked(path)
    except BlockingIOError as error:
        raise OutputLocked(
            f"{path.parent} is being written by another run ({_holder(path)}); "
            "wait for it or choose another folder"
        ) from error
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be locked ({error.strerror}); choose another output folder"
        ) from error
    try:
        os.ftruncate(descriptor, 0)
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"process {os.getpid()}, started {started}\n".encode())
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows does not remove an open file; it is taken over next time
            path.unlink()
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _take(descriptor)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass  # its holder removed the file between our two steps: try the new one
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip() or "which just started"
    except OSError:
        return "which just ended"
