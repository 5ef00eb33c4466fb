"""One run per folder, and no lock outlives its holder."""

import subprocess
import sys
from pathlib import Path

import pytest

from facerestore.batch.lock import lock
from facerestore.core.errors import OutputError, OutputLocked

HOLD = """
import sys
from pathlib import Path
from facerestore.batch.lock import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_holder_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(OutputLocked, match=f"process {other.pid}"), lock(path):
            pass
        other.kill()
        other.wait()
        assert path.exists()  # left behind by the kill, and no obstacle
        with lock(path):
            pass
    assert not path.exists()


def test_two_holders_in_one_process_exclude_each_other(tmp_path: Path) -> None:
    with lock(tmp_path / "lock"), pytest.raises(OutputLocked), lock(tmp_path / "lock"):
        pass
    with lock(tmp_path / "lock"):
        pass


def test_an_impossible_place_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="another output folder"), lock(tmp_path / "missing" / "lock"):
        pass
