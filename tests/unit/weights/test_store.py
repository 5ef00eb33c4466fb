"""Where the store looks, and what it says when a file is missing or wrong."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from facerestore.core.errors import ChecksumMismatch, ConfigError, WeightsNotFound
from facerestore.weights import store as store_module
from facerestore.weights.store import WeightStore

NAME = "mtcnn"
FILE = "mtcnn.safetensors"
SHIPPED = Path(__file__).parents[3] / "weights"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package without data of its own, an empty cache, and an empty working directory: returned."""
    (tmp_path / "site" / "facerestore" / "weights").mkdir(parents=True)
    monkeypatch.setattr(store_module, "_HERE", tmp_path / "site" / "facerestore" / "weights")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FACERESTORE_WEIGHTS", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def put(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(SHIPPED / FILE, folder / FILE))


def test_missing_file_is_named_with_size_licence_and_what_to_do(bare: Path) -> None:
    with pytest.raises(WeightsNotFound) as caught:
        WeightStore().find(NAME)
    for part in (FILE, "2.0 MB", "MIT", "facenet-pytorch", "FACERESTORE_WEIGHTS", f"--weights {NAME}=PATH"):
        assert part in str(caught.value)
    assert isinstance(caught.value, FileNotFoundError)


def test_places_are_searched_in_their_order(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each place that is filled stands before those filled so far."""
    base = bare.parent
    cached = put(base / "cache" / "facerestore" / "weights")
    assert WeightStore().find(NAME) == cached
    own = put(base / "site" / "facerestore" / "weights" / "shipped")
    assert WeightStore().find(NAME) == own
    second = put(base / "second")
    monkeypatch.setenv("FACERESTORE_WEIGHTS", os.pathsep.join((str(base / "first"), str(base / "second"))))
    assert WeightStore().find(NAME) == second
    first = put(base / "first")
    assert WeightStore().find(NAME) == first
    explicit = put(base / "explicit")
    assert WeightStore(paths={NAME: explicit}).find(NAME) == explicit


def test_weights_of_a_source_checkout_count_only_beside_its_own_pyproject(bare: Path) -> None:
    checkout = put(bare.parent / "site" / "weights")
    project = bare.parent / "site" / "pyproject.toml"
    project.write_text('[project]\nname = "another"\n')
    with pytest.raises(WeightsNotFound):
        WeightStore().find(NAME)
    project.write_text('[project]\nname = "facerestore"\n')
    assert WeightStore().find(NAME) == checkout


@pytest.mark.parametrize("entry", ["", ".", "weights", os.pathsep.join(("", ".", "weights"))])
def test_working_directory_is_never_searched(
    entry: str, bare: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither by itself nor through a relative entry of the variable, which is warned of."""
    put(bare)
    put(bare / "weights")
    put(bare / "shipped")
    monkeypatch.setenv("FACERESTORE_WEIGHTS", entry)
    monkeypatch.setenv("XDG_CACHE_HOME", ".")
    monkeypatch.setenv("HOME", str(bare.parent / "home"))
    with caplog.at_level(logging.WARNING), pytest.raises(WeightsNotFound):
        WeightStore().find(NAME)
    assert ("relative to the working directory" in caplog.text) == bool(entry)


def test_explicit_path_that_is_not_there_is_an_error(bare: Path) -> None:
    with pytest.raises(WeightsNotFound, match=r"no\.pt"):
        WeightStore(paths={NAME: bare / "no.pt"}).find(NAME)


def test_unknown_name_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mtcnn'"):
        WeightStore().find("mtcn")
    with pytest.raises(ConfigError, match="known are"):
        WeightStore(paths={"zzz": "a"})


def test_flipped_byte_is_refused_by_name(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(bare.parent / "given")
    monkeypatch.setenv("FACERESTORE_WEIGHTS", str(path.parent))
    assert WeightStore().verify(NAME) == path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for ask in (WeightStore().verify, WeightStore().load, WeightStore().sha256):
        with pytest.raises(ChecksumMismatch) as caught:
            ask(NAME)
        assert str(path) in str(caught.value)


def test_truncated_file_is_refused_by_name(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(bare.parent / "given")
    monkeypatch.setenv("FACERESTORE_WEIGHTS", str(path.parent))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ChecksumMismatch, match="1,987,591 bytes"):
        WeightStore().load(NAME)


def test_file_of_the_users_own_may_differ_and_reports_its_own_hash(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    own = tmp_path / "own.safetensors"
    save_file({"pnet.conv1.weight": torch.zeros(10, 3, 3, 3)}, own)
    store = WeightStore(paths={NAME: str(own)})
    assert store.load(NAME).keys() == {"pnet.conv1.weight"}
    assert store.sha256(NAME) != store.spec(NAME).sha256
    assert WeightStore().sha256(NAME) == store.spec(NAME).sha256


def test_importing_the_store_loads_neither_torch_nor_numpy() -> None:
    code = "import sys, facerestore.weights.store as s; s.WeightStore().verify('mtcnn'); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "safetensors"} & set(done.stdout.split())
