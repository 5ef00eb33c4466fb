"""Small records in JSON that are kept between runs: written whole or not at all, and empty where damaged."""

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any


def read_record(path: Path) -> dict[str, Any]:
    """What was written, or nothing: if there is none yet, or if it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def write_record(path: Path, content: dict[str, Any]) -> None:
    """Replace the record; of two processes that do so, one is the last.

    Raises:
        OSError: if it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=1, sort_keys=True)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # what went wrong is being reported
            temporary.unlink()
