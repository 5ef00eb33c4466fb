"""Folders of real pictures through a real pipeline with a tiny network: resumed, whole, never mixed up."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facerestore import recipes
from facerestore.batch import ItemResult, Summary, restore_folder, runner
from facerestore.batch.lock import lock
from facerestore.core.errors import ConfigError, OutputError, OutputLocked
from facerestore.pipeline import Pipeline, RestorationOptions


@pytest.fixture(scope="session")
def small_face(aligned: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face that is found in a blink: 160 px."""
    path = tmp_path_factory.mktemp("small") / "face.png"
    Image.open(aligned / "hopper_soft_grain.jpg").convert("RGB").resize((160, 160)).save(path)
    return path


@pytest.fixture
def folder(small_face: Path, tmp_path: Path) -> Path:
    """Three pictures with a face and one without, in a tree."""
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    face = Image.open(small_face)
    face.save(source / "a.png")
    face.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(source / "b.jpg", quality=92)
    face.rotate(20, fillcolor=(90, 90, 90)).save(source / "sub" / "c.png")
    Image.new("RGB", (80, 60), (40, 120, 90)).save(source / "d.jpg")
    return source


ALIGNED = RestorationOptions(aligned=True)  # searches nothing: every picture is taken for a face, and fast
SEARCHED = RestorationOptions()


def run(pipe: Pipeline, folder: Path, **options: Any) -> tuple[Summary, list[ItemResult]]:
    options.setdefault("options", ALIGNED)
    results: list[ItemResult] = []
    inputs = options.pop("inputs", [folder])
    output = options.pop("output", folder.parent / "out")
    summary = restore_folder(pipe, inputs, output, on_item=results.append, **options)
    return summary, results


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file but the manifest."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.jsonl"
    }


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_folder_is_restored_with_one_line_a_picture(tiny_pipeline: Pipeline, folder: Path) -> None:
    summary, results = run(tiny_pipeline, folder, options=SEARCHED)
    out = folder.parent / "out"
    assert summary.counts == {"restored": 3, "no face": 1}
    assert set(contents(out)) == {"a.png", "b.jpg", "d.jpg", "sub/c.png"}
    assert (out / "d.jpg").read_bytes() == (folder / "d.jpg").read_bytes()
    by_name = {row["output"]: row for row in rows(out)}
    assert [result.row for result in results] == rows(out)
    row = by_name["sub/c.png"]
    assert row["input_sha256"] == hashlib.sha256((folder / "sub/c.png").read_bytes()).hexdigest()
    assert row["output_sha256"] == contents(out)["sub/c.png"]
    assert row["output_bytes"] == (out / "sub/c.png").stat().st_size
    face = row["faces"][0]
    assert face["status"] == "restored"
    assert len(face["landmarks"]) == 5
    assert 0 <= face["identity_similarity"] <= 1
    assert face["facts"]["entry_px"] in (64, 128, 192, 256)
    assert row["run"]["seed"] == 0
    assert row["run"]["weights"]["mtcnn"]
    assert row["seconds"]["write"] > 0
    assert by_name["d.jpg"]["notes"] == ["no face found"]


def test_the_second_run_does_nothing(tiny_pipeline: Pipeline, folder: Path) -> None:
    run(tiny_pipeline, folder)
    out = folder.parent / "out"
    before, lines = {path: path.stat().st_mtime_ns for path in out.rglob("*")}, len(rows(out))
    summary, results = run(tiny_pipeline, folder)
    assert summary.earlier == 4
    assert all(result.earlier and result.path is not None for result in results)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert len(rows(out)) == lines


def test_another_seed_or_option_does_everything_again(tiny_pipeline: Pipeline, folder: Path) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"seed": 1},
        {"options": RestorationOptions(aligned=True, strength=0.5)},
        {"options": RestorationOptions(aligned=True, upscale=2)},
        {"strip_metadata": True},
        {"overwrite": True},
    ]
    for change in changes:
        summary, results = run(tiny_pipeline, folder, inputs=[folder / "a.png"], **change)
        assert summary.earlier == 0, change
        assert rows(folder.parent / "out")[-1]["run"] == results[0].row["run"]
    assert run(tiny_pipeline, folder, inputs=[folder / "a.png"])[0].earlier == 1


def test_another_recipe_does_not_take_the_old_results_for_its_own(
    tiny_pipeline: Pipeline, folder: Path
) -> None:
    run(tiny_pipeline, folder, inputs=[folder / "a.png"])
    old = contents(folder.parent / "out")["a.png"]
    recipe = recipes.get("lite").tiny().override("stage.stages.1.method", "adain")
    other = recipe.build(device="cpu", dtype="fp32")
    summary, _ = run(other, folder, inputs=[folder / "a.png"])
    assert summary.earlier == 0
    assert contents(folder.parent / "out")["a.png"] != old
    summary, _ = run(tiny_pipeline, folder, inputs=[folder / "a.png"])  # and back
    assert summary.earlier == 0
    assert contents(folder.parent / "out")["a.png"] == old


def test_what_was_damaged_or_changed_is_done_again_and_only_that(
    tiny_pipeline: Pipeline, folder: Path
) -> None:
    run(tiny_pipeline, folder)
    out = folder.parent / "out"
    whole = contents(out)
    (out / "a.png").write_bytes((out / "a.png").read_bytes()[:-100])
    (out / "sub/c.png").unlink()
    _, results = run(tiny_pipeline, folder)
    assert [result.row["output"] for result in results if not result.earlier] == ["a.png", "sub/c.png"]
    assert contents(out) == whole
    Image.open(folder / "a.png").rotate(90).save(folder / "b.jpg")
    _, results = run(tiny_pipeline, folder)
    assert [result.row["output"] for result in results if not result.earlier] == ["b.jpg"]


def test_bad_pictures_are_named_and_the_rest_is_done(tiny_pipeline: Pipeline, folder: Path) -> None:
    (folder / "sub/c.png").unlink()
    shutil.copy(folder / "b.jpg", folder / "c.jpg")
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("this is no picture")
    (folder / "torn.jpg").write_bytes((folder / "b.jpg").read_bytes()[:900])
    summary, results = run(tiny_pipeline, folder, inputs=[folder, folder / "gone.png"])
    assert summary.counts == {"restored": 4, "failed": 4}
    failed = {result.item.source.name: result.row for result in results if result.row["status"] == "failed"}
    assert set(failed) == {"empty.png", "text.jpg", "torn.jpg", "gone.png"}
    assert all(
        name in row["error"] and row["error_kind"] == "ImageUnreadable" for name, row in failed.items()
    )
    assert failed["gone.png"]["input_sha256"] is None
    shutil.copy(
        folder / "a.png", folder / "empty.png"
    )  # mended: the next run does it, and tries the others again
    summary, _ = run(tiny_pipeline, folder)
    assert (summary.counts["restored"], summary.counts["failed"], summary.earlier) == (5, 2, 4)


def test_the_size_limit_is_reported_and_can_be_raised(tiny_pipeline: Pipeline, folder: Path) -> None:
    summary, results = run(tiny_pipeline, folder, inputs=[folder / "a.png"], max_pixels=100)
    assert summary.failed == 1
    assert results[0].row["error_kind"] == "ImageTooLarge"
    assert run(tiny_pipeline, folder, inputs=[folder / "a.png"])[0].failed == 0


def test_same_stem_twice_and_any_script(tiny_pipeline: Pipeline, folder: Path) -> None:
    shutil.copy(folder / "b.jpg", folder / "a.jpg")
    shutil.copy(folder / "a.png", folder / "家族 <b> ß.png")
    shutil.copy(folder / "a.png", os.fsencode(folder) + b"/caf\xe9.png")  # no Unicode
    summary, _ = run(tiny_pipeline, folder, format="png", inputs=[folder])
    out = folder.parent / "out"
    assert summary.failed == 0
    assert {"a.png", "a.jpg.png", "b.png", "d.png", "sub/c.png", "家族 <b> ß.png", "caf\udce9.png"} == set(
        contents(out)
    )
    assert Image.open(out / "a.jpg.png").format == "PNG"
    assert run(tiny_pipeline, folder, format="png")[0].earlier == 7


def test_faceless_pictures_are_skipped_when_asked(tiny_pipeline: Pipeline, folder: Path) -> None:
    options: dict[str, Any] = {"inputs": [folder / "d.jpg"], "options": SEARCHED}
    summary, results = run(tiny_pipeline, folder, no_face="skip", **options)
    assert summary.counts == {"no face": 1}
    assert results[0].path is None
    assert contents(folder.parent / "out") == {}
    assert run(tiny_pipeline, folder, no_face="skip", **options)[0].earlier == 1
    assert run(tiny_pipeline, folder, no_face="copy", **options)[0].earlier == 0
    assert (folder.parent / "out/d.jpg").read_bytes() == (folder / "d.jpg").read_bytes()


def test_faceless_pictures_in_another_format_keep_their_pixels(tiny_pipeline: Pipeline, folder: Path) -> None:
    run(tiny_pipeline, folder, inputs=[folder / "d.jpg"], format="png", options=SEARCHED)
    made, given = Image.open(folder.parent / "out/d.png"), Image.open(folder / "d.jpg")
    assert np.array_equal(np.array(made), np.array(given))


def test_a_picture_whose_faces_are_left_alone_is_copied(tiny_pipeline: Pipeline, folder: Path) -> None:
    options = RestorationOptions(faces=0)
    summary, results = run(tiny_pipeline, folder, inputs=[folder / "b.jpg"], options=options)
    assert summary.counts == {"copied": 1}
    assert results[0].row["faces"][0]["status"] == "not chosen"
    assert (folder.parent / "out/b.jpg").read_bytes() == (folder / "b.jpg").read_bytes()
    larger = RestorationOptions(faces=0, upscale=2)
    assert run(tiny_pipeline, folder, inputs=[folder / "b.jpg"], options=larger)[0].counts == {"restored": 1}
    assert Image.open(folder.parent / "out/b.jpg").size == (320, 320)


def test_a_file_that_no_run_wrote_is_not_replaced(tiny_pipeline: Pipeline, folder: Path) -> None:
    out = folder.parent / "out"
    out.mkdir()
    (out / "a.png").write_text("mine")
    summary, results = run(tiny_pipeline, folder)
    assert summary.counts == {"restored": 3, "failed": 1}
    assert "--overwrite" in next(r.row["error"] for r in results if r.row["status"] == "failed")
    assert (out / "a.png").read_text() == "mine"
    assert run(tiny_pipeline, folder, overwrite=True)[0].failed == 0
    assert Image.open(out / "a.png").size == (512, 512)


def test_interrupted_between_pictures_it_goes_on_where_it_stopped(
    tiny_pipeline: Pipeline, folder: Path
) -> None:
    out = folder.parent / "out"
    seen: list[str] = []

    def interrupt(result: ItemResult) -> None:
        seen.append(result.row["output"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_folder(tiny_pipeline, [folder], out, options=ALIGNED, on_item=interrupt)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("facerestore")]
    done = {row["output"] for row in rows(out)}
    assert set(contents(out)) == done  # no lock, no half file
    assert seen == ["a.png"]
    assert "a.png" in done
    summary, _ = run(tiny_pipeline, folder)
    assert summary.earlier == len(done)
    assert len(rows(out)) == 4


@pytest.mark.parametrize("step", ["digest", "append"])
def test_killed_at_any_step_of_writing_nothing_is_half(
    tiny_pipeline: Pipeline, folder: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill between two steps leaves what stands on the disk at that moment."""
    out, frozen = folder.parent / "out", folder.parent / "frozen"
    original = runner.digest if step == "digest" else runner.Manifest.append

    def freeze(*args: Any) -> Any:
        result = original(*args)
        if not frozen.exists() and any(out.rglob("picture.*")):
            shutil.copytree(out, frozen)
        return result

    target = (
        "facerestore.batch.runner.digest" if step == "digest" else "facerestore.batch.runner.Manifest.append"
    )
    monkeypatch.setattr(target, freeze)
    run(tiny_pipeline, folder)
    monkeypatch.undo()
    assert any(frozen.rglob("picture.*"))  # the staged file of the moment
    summary, _ = run(tiny_pipeline, folder, output=frozen)
    assert summary.failed == 0
    assert contents(frozen) == contents(out)


def test_two_runs_into_one_folder_do_not_mix(tiny_pipeline: Pipeline, folder: Path) -> None:
    out = folder.parent / "out"
    out.mkdir()
    with lock(out / ".facerestore.lock"), pytest.raises(OutputLocked, match=f"process {os.getpid()}"):
        run(tiny_pipeline, folder)
    assert contents(out) == {}
    assert run(tiny_pipeline, folder)[0].failed == 0


def test_wrong_use_is_refused_before_anything_is_written(tiny_pipeline: Pipeline, folder: Path) -> None:
    out = folder.parent / "out"
    for options in ({"format": "gif"}, {"no_face": "delete"}, {"inputs": []}):
        with pytest.raises(ConfigError):
            run(tiny_pipeline, folder, **options)
    with pytest.raises(ConfigError, match="replace the input"):
        run(tiny_pipeline, folder, output=folder)
    assert not out.exists() or not any(out.iterdir())


def test_an_output_folder_that_cannot_be(tiny_pipeline: Pipeline, folder: Path) -> None:
    with pytest.raises(OutputError, match="choose another output folder"):
        run(tiny_pipeline, folder, output=folder / "a.png" / "out")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that holds a few results."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_cannot_be_written_is_refused_at_once(
    tiny_pipeline: Pipeline, folder: Path, tiny_disk: Path
) -> None:
    (tiny_disk / "out").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    for output in (tiny_disk / "out", tiny_disk / "new"):
        with pytest.raises(OutputError, match=os.strerror(errno.EROFS)):
            run(tiny_pipeline, folder, output=output)


def test_a_full_disk_ends_the_run_and_what_is_done_stays_done(
    tiny_pipeline: Pipeline, folder: Path, tiny_disk: Path
) -> None:
    for index in range(4):
        shutil.copy(folder / "a.png", folder / f"more{index}.png")
    out = tiny_disk / "out"
    with pytest.raises(OutputError, match=os.strerror(errno.ENOSPC)):
        run(tiny_pipeline, folder, output=out)
    done = {row["output"]: row["output_sha256"] for row in rows(out)}
    assert {name: done[name] for name in contents(out)} == contents(out)
    assert 1 <= len(contents(out)) < 8
    room = folder.parent / "room"
    shutil.copytree(out, room)
    summary, _ = run(tiny_pipeline, folder, output=room)
    assert summary.failed == 0
    assert summary.earlier == len(contents(out))


def test_memory_does_not_grow_with_the_number_of_pictures(
    tiny_pipeline: Pipeline, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow the disk, only a few results wait for it."""
    for index in range(4):
        shutil.copy(folder / "a.png", folder / f"more{index}.png")
    made: list[weakref.ref[Any]] = []
    most = 0
    original, restoring = runner.digest, tiny_pipeline.restore_many

    def watched(*args: Any, **options: Any) -> Iterator[Any]:
        for result in restoring(*args, **options):
            made.append(weakref.ref(result.photo.pixels))
            yield result

    def slow(path: Path) -> Any:
        nonlocal most
        time.sleep(0.3)
        most = max(most, sum(pixels() is not None for pixels in made))
        return original(path)

    monkeypatch.setattr("facerestore.batch.runner.digest", slow)
    monkeypatch.setattr(tiny_pipeline, "restore_many", watched)
    restore_folder(tiny_pipeline, [folder], folder.parent / "out", options=ALIGNED)
    assert 1 <= most <= 5
