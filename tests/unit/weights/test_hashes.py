"""Hashes of big files are remembered as long as the file is the same; all goes on where they cannot be."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from facerestore.weights import hashes
from facerestore.weights.hashes import sha256_of
from facerestore.weights.store import WeightStore

OLD = 10**18  # a time of change long ago, in ns
NAME = "osdface/lora"


@pytest.fixture(autouse=True)
def small_is_big(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "BIG_BYTES", 4)


def write(path: Path, content: bytes, changed: int = OLD) -> str:
    """Write a file with a time of change; returns the true hash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(changed, changed))
    return hashlib.sha256(content).hexdigest()


def test_a_big_file_is_read_once(tmp_path: Path) -> None:
    """Bytes that change while size and time stay are not seen, which shows that they were not read."""
    file, record = tmp_path / "file", tmp_path / "cache" / "hashes.json"
    first = write(file, b"content")
    assert sha256_of(file, record=record) == first
    second = write(file, b"CONTENT")
    assert sha256_of(file, record=record) == first
    assert sha256_of(file) == second
    assert sha256_of(file, record=record) == first
    assert sha256_of(file, record=record, anew=True) == second == sha256_of(file, record=record)
    write(file, b"CONTENT", OLD + 1)
    assert sha256_of(file, record=record) == second
    longer = write(file, b"CONTENTS", OLD + 1)
    assert sha256_of(file, record=record) == longer
    assert sha256_of(file, record=record) == longer


def test_a_file_is_known_by_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its full path, behind links: two of a name, and a link that points elsewhere, are told apart."""
    record, link = tmp_path / "hashes.json", tmp_path / "link"
    one, two = (write(tmp_path / name / "file", name.encode()) for name in ("first", "other"))
    for folder, digest in (("first", one), ("other", two)):
        monkeypatch.chdir(tmp_path / folder)
        assert sha256_of(Path("file"), record=record) == digest
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / folder / "file")
        assert sha256_of(link, record=record) == digest


def test_what_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    """Clocks of file systems are coarse: it could change again at the same time of change."""
    file, record = tmp_path / "file", tmp_path / "hashes.json"
    file.write_bytes(b"content")
    sha256_of(file, record=record)
    assert not record.exists()


def test_small_files_are_read_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "BIG_BYTES", 8)
    file, record = tmp_path / "file", tmp_path / "hashes.json"
    for content in (b"content", b"CONTENT"):
        digest = write(file, content)
        assert sha256_of(file, record=record) == digest
    assert not record.exists()


def test_a_folder_is_the_names_and_hashes_of_its_files(tmp_path: Path) -> None:
    """Settings, and tensors: pickles count only where there is nothing else."""
    record, folder = tmp_path / "hashes.json", tmp_path / "folder"
    write(folder / "config.json", b"settings")
    write(folder / "model.bin", b"pickle")
    write(folder / "README.md", b"words, more or less")
    (folder / "deeper.json").mkdir()
    pickled = sha256_of(folder, record=record)
    lines = "".join(
        f"{name} {hashlib.sha256(content).hexdigest()}\n"
        for name, content in (("config.json", b"settings"), ("model.bin", b"pickle"))
    )
    assert pickled == hashlib.sha256(lines.encode()).hexdigest() == sha256_of(folder)
    write(folder / "model.safetensors", b"tensors")
    mapped = sha256_of(folder, record=record)
    assert mapped != pickled
    write(folder / "model.bin", b"another", OLD + 1)
    assert sha256_of(folder, record=record) == mapped
    assert len(json.loads(record.read_text())) == 3


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no json",
        b"\xff\xfe",
        b"[1, 2]",
        b"[" * 100_000,
        *(
            json.dumps(entry).encode()
            for entry in ({"FILE": 3}, {"FILE": [7, OLD]}, {"FILE": [7, OLD, "no hash"]})
        ),
        json.dumps({"FILE": [7, OLD, 5]}).encode(),
        json.dumps({"FILE": {"size": 7}}).encode(),
    ],
)
def test_a_damaged_record_is_written_again(content: bytes, tmp_path: Path) -> None:
    file, record = tmp_path / "file", tmp_path / "hashes.json"
    digest = write(file, b"content")
    record.write_bytes(content.replace(b"FILE", str(file).encode()))
    assert sha256_of(file, record=record) == digest
    assert json.loads(record.read_text()) == {str(file): [7, OLD, digest]}


def test_a_record_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    file = tmp_path / "file"
    digest = write(file, b"content")
    (tmp_path / "no folder").write_bytes(b"")
    assert sha256_of(file, record=tmp_path / "no folder" / "hashes.json") == digest
    (tmp_path / "taken").mkdir()
    assert sha256_of(file, record=tmp_path / "taken") == digest
    assert {path.name for path in tmp_path.iterdir()} == {"file", "no folder", "taken"}


def test_processes_side_by_side_leave_a_whole_record(tmp_path: Path) -> None:
    """Four of them, eight files each, into one record: all answers are right, and the record can be read."""
    for process in range(4):
        for index in range(8):
            write(tmp_path / f"{process}-{index}", f"content {process} {index}".encode())
    code = (
        "import sys; from pathlib import Path; from facerestore.weights import hashes; hashes.BIG_BYTES = 4\n"
        "folder, process = Path(sys.argv[1]), sys.argv[2]\n"
        "for index in range(8):\n"
        "    print(hashes.sha256_of(folder / f'{process}-{index}', record=folder / 'hashes.json'))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [
        subprocess.Popen([*command, str(process)], stdout=subprocess.PIPE, text=True) for process in range(4)
    ]
    for process, run in enumerate(running):
        found = run.communicate()[0].split()
        assert found == [
            hashlib.sha256(f"content {process} {index}".encode()).hexdigest() for index in range(8)
        ]
    kept = json.loads((tmp_path / "hashes.json").read_text())
    assert kept and all(Path(place).read_bytes() and len(entry) == 3 for place, entry in kept.items())
    assert not list(tmp_path.glob(".*"))


def test_the_store_remembers_and_verifying_reads_again(tmp_path: Path, cache: Path) -> None:
    file = tmp_path / "own.safetensors"
    first = write(file, b"content")
    assert WeightStore(paths={NAME: file}).sha256(NAME) == first
    assert json.loads((cache / "hashes.json").read_text()) == {str(file): [7, OLD, first]}
    second = write(file, b"CONTENT")
    store = WeightStore(paths={NAME: file})
    assert store.sha256(NAME) == first
    store.verify(NAME)
    assert store.sha256(NAME) == second == WeightStore(paths={NAME: file}).sha256(NAME)
