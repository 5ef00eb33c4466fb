"""The examples run as they stand, and the example pictures are what their script makes."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

STEPS = 1.0  # mean difference in steps of 255 that JPEG decoders and encoders of other versions may bring


def python(script: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"), dtype=np.float64)


def test_pictures_are_made_by_their_script(repo: Path, tmp_path: Path):
    pytest.importorskip("skimage", reason="scikit-image is not installed; it comes with the extra dev")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed; it comes with the extra notebooks")
    examples = repo / "examples"
    made = python(examples / "make_examples.py", tmp_path)
    assert made.returncode == 0, made.stderr
    names = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*"))
    there = sorted(
        f"{folder}/{p.name}" for folder in ("faces", "photos") for p in (examples / folder).iterdir()
    )
    assert names == there
    assert len(names) == 13
    for name in names:
        assert np.abs(pixels(tmp_path / name) - pixels(examples / name)).mean() < STEPS, name


def test_every_picture_has_its_origin_stated(repo: Path):
    stated = (repo / "examples" / "LICENSES.md").read_text("utf-8")
    for folder in ("faces", "photos"):
        for path in (repo / "examples" / folder).iterdir():
            assert f"`{folder}/{path.name}`" in stated


def test_restore_photo(repo: Path, photos: Path, tmp_path: Path):
    target = tmp_path / "restored.jpg"
    done = python(repo / "examples" / "restore_photo.py", photos / "astronaut_thumbnail.jpg", target)
    assert done.returncode == 0, done.stderr
    assert "face 0" in done.stdout
    assert "identity similarity" in done.stdout
    changed = np.abs(pixels(target) - pixels(photos / "astronaut_thumbnail.jpg")).mean(axis=2)
    assert changed[70:160, 190:260].mean() > 1  # the face
    assert changed[400:].mean() < 1  # the suit: only what JPEG does to it


def test_restore_folder_names_what_it_could_not_read(repo: Path, photos: Path, tmp_path: Path):
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "good.jpg").write_bytes((photos / "astronaut_thumbnail.jpg").read_bytes())
    (source / "broken.jpg").write_bytes(b"this is no picture")
    done = python(repo / "examples" / "restore_folder.py", source, target)
    assert done.returncode == 1, done.stderr
    assert "broken.jpg failed" in done.stdout
    assert (target / "good.jpg").is_file()
    assert not (target / "broken.jpg").exists()


def test_readme_tells_the_truth(repo: Path, tmp_path: Path):
    text = (repo / "README.md").read_text("utf-8")
    code, *_ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)  # the others need files of the user's
    assert len([line for line in code.splitlines() if line]) <= 11
    (tmp_path / "examples").symlink_to(repo / "examples")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "restored" in done.stdout
    assert "a.jpg" in done.stdout  # not there: named, and the rest goes on
    assert Image.open(tmp_path / "restored.png").size == (512, 600)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (repo / target).exists(), target


def test_train_from_folder_goes_on_and_restores_with_what_it_learned(
    repo: Path, aligned: Path, tmp_path: Path
):
    script, run = repo / "examples" / "03_train_from_folder.py", tmp_path / "run"
    arguments = (aligned, run, aligned / "hopper_x8.png", "2")
    done = python(script, *arguments)
    assert done.returncode == 0, done.stderr
    assert "2/2  generator/l1" in done.stdout
    assert Image.open(run / "restored.png").size == (512, 512)
    again = python(script, *arguments)
    assert again.returncode == 0, again.stderr
    assert "2/2" not in again.stdout


def executed(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, **parameters: int
) -> list:
    """The outputs of a notebook, run from a copy of `examples/` with other values in its first code cell."""
    nbclient = pytest.importorskip(
        "nbclient", reason="nbclient is not installed; it comes with the extra notebooks"
    )
    nbformat = pytest.importorskip(
        "nbformat", reason="nbformat is not installed; it comes with the extra notebooks"
    )
    pytest.importorskip("ipykernel", reason="ipykernel is not installed; it comes with the extra notebooks")
    examples = tmp_path / "examples"
    examples.mkdir()
    for folder in ("photos", "faces"):
        (examples / folder).symlink_to(repo / "examples" / folder)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(Path(sys.prefix) / "share" / "jupyter"))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")

    notebook = nbformat.read(repo / "examples" / name, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "outputs are not committed"
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for parameter, value in parameters.items():
        first.source, count = re.subn(rf"(?m)^{parameter} = \d+", f"{parameter} = {value}", first.source)
        assert count == 1, parameter
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(examples)}})
    client.execute()
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


@pytest.mark.slow
def test_notebook(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    outputs = executed(repo, tmp_path, monkeypatch, "01_restore.ipynb")
    text = "".join(output.get("text", "") for output in outputs)
    assert "similarity" in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 6
    assert (tmp_path / "out" / "notebook" / "hopper_faded.jpg").stat().st_size > 10_000


@pytest.mark.slow
def test_notebook_of_training(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("skimage", reason="scikit-image is not installed; it comes with the extra dev")
    outputs = executed(repo, tmp_path, monkeypatch, "02_finetune.ipynb", STEPS=4, SIDE_PX=64)
    text = "".join(output.get("text", "") for output in outputs)
    trained, held = re.search(r"(\d+) faces \(hash \w+\), (\d+) held back", text).groups()
    assert int(trained) + int(held) == 12 and int(held) >= 2
    assert "step    0: PSNR" in text and "step    4: PSNR" in text
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    assert (tmp_path / "out" / "finetune" / "run" / "export" / "face_unet.safetensors").is_file()
