"""Who may import whom, how long a file may be, and what the public face of the package is made of."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import facerestore

LINES = 400
SOURCES = ("facerestore", "weights", "examples")


def test_every_import_goes_down(repo: Path):
    linter = shutil.which("lint-imports", path=Path(sys.executable).parent)
    if linter is None:
        pytest.skip("import-linter is not installed; it comes with the extra dev")
    run = subprocess.run([linter, "--no-cache"], cwd=repo, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 broken" in run.stdout


def test_no_file_outgrows_its_purpose(repo: Path):
    files = [path for folder in SOURCES for path in (repo / folder).rglob("*.py")]
    lengths = {str(path.relative_to(repo)): len(path.read_text("utf-8").splitlines()) for path in files}
    assert len(lengths) > 20
    assert {name: lines for name, lines in lengths.items() if lines > LINES} == {}


def test_lazy_names_and_typed_names_are_the_same():
    module = ast.parse(Path(facerestore.__file__).read_text("utf-8"))
    (typed,) = (node for node in module.body if isinstance(node, ast.If))
    imports = [node for node in typed.body if isinstance(node, ast.ImportFrom)]
    names = {alias.asname: node.module for node in imports for alias in node.names}
    assert names == facerestore._EXPORTS
    assert set(facerestore.__all__) == {*names, *facerestore._PACKAGES, "__version__"}
    assert len(facerestore.__all__) == len(set(facerestore.__all__))


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = facerestore.lod
    assert "load" in dir(facerestore)
