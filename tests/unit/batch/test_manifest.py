"""The manifest survives kills, torn lines and foreign hands."""

import json
from pathlib import Path

import pytest

from facerestore.batch.manifest import Manifest, digest
from facerestore.core.errors import OutputError

RUN = {
    "recipe": "r",
    "seed": 0,
    "options": {"faces": "all"},
    "versions": {"facerestore": "1", "torch": "2.6"},
}


def row(
    folder: Path, name: str, status: str = "restored", run=RUN, content: bytes | None = b"output"
) -> dict:
    source = folder / f"source of {name}"
    source.write_bytes(b"input")
    written = None
    if content is not None:
        (folder / name).write_bytes(content)
        written = digest(folder / name)
    return {
        "source": str(source),
        "input_sha256": digest(source).sha256,
        "output": name,
        "output_sha256": written and written.sha256,
        "output_bytes": written and written.bytes,
        "status": status,
        "run": run,
    }


def done(manifest: Manifest, name: str, run=RUN, keeps_faceless: bool = True) -> bool:
    return manifest.is_done(name, manifest.folder / f"source of {name}", run, keeps_faceless=keeps_faceless)


def test_a_row_comes_back_in_the_next_run(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        assert not done(manifest, "a.png")
        manifest.append(row(tmp_path, "a.png"))
        manifest.append(row(tmp_path, "家族 <b>.png"))
        assert done(manifest, "a.png")
    with Manifest(tmp_path) as again:
        assert done(again, "a.png")
        assert again.row("家族 <b>.png")["output"] == "家族 <b>.png"
        assert again.outputs == {"a.png", "家族 <b>.png"}
    assert "家族" in (tmp_path / "manifest.jsonl").read_text(encoding="utf-8")


def test_a_name_that_is_no_unicode_stays_valid_json(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.append(row(tmp_path, "a.png") | {"source": "caf\udce9.png"})
    line = (tmp_path / "manifest.jsonl").read_text(encoding="utf-8")
    assert json.loads(line)["source"] == "caf\udce9.png"


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_a_torn_last_line_is_cut_off_and_the_next_line_is_whole(tmp_path: Path, kept: float) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.append(row(tmp_path, "a.png"))
        manifest.append(row(tmp_path, "b.png"))
    path = tmp_path / "manifest.jsonl"
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[: int(len(second) * kept)])
    with Manifest(tmp_path) as manifest:
        assert done(manifest, "a.png")
        assert not done(manifest, "b.png")
        manifest.append(row(tmp_path, "b.png"))
    assert [json.loads(line)["output"] for line in path.read_text().splitlines()] == ["a.png", "b.png"]


def test_lines_that_are_none_are_passed_over(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.append(row(tmp_path, "a.png"))
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(b"\x00\x00\xff\n[1]\n{}\nhello\n" + path.read_bytes())
    with Manifest(tmp_path) as manifest:
        assert done(manifest, "a.png")
        assert manifest.row("a.png")["status"] == "restored"


@pytest.mark.parametrize(
    "change",
    [{"recipe": "other"}, {"seed": 1}, {"options": {"faces": "largest"}}, {"weights": {"net": "ff"}}],
)
def test_another_run_is_not_this_run(tmp_path: Path, change: dict) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.append(row(tmp_path, "a.png"))
        assert not done(manifest, "a.png", RUN | change)
        assert manifest.is_ours("a.png")


def test_another_torch_is_the_same_run_another_facerestore_is_not(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.append(row(tmp_path, "a.png"))
        assert done(manifest, "a.png", RUN | {"versions": {"facerestore": "1", "torch": "2.7"}})
        assert not done(manifest, "a.png", RUN | {"versions": {"facerestore": "2", "torch": "2.6"}})


def test_a_changed_input_or_output_is_not_done(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.append(row(tmp_path, "a.png"))
        (tmp_path / "a.png").write_bytes(b"outpux")  # same size
        assert not done(manifest, "a.png")
        (tmp_path / "a.png").unlink()
        assert not done(manifest, "a.png")
        manifest.append(row(tmp_path, "a.png"))
        (tmp_path / "source of a.png").write_bytes(b"another")
        assert not done(manifest, "a.png")


def test_failures_are_tried_again_but_the_older_output_stays_ours(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.append(row(tmp_path, "a.png"))
        manifest.append(row(tmp_path, "a.png", "failed", content=None))
    with Manifest(tmp_path) as manifest:
        assert not done(manifest, "a.png")
        assert manifest.is_ours("a.png")


def test_a_skipped_faceless_picture_is_done_only_while_they_are_skipped(tmp_path: Path) -> None:
    with Manifest(tmp_path) as manifest:
        manifest.append(row(tmp_path, "skipped.png", "no face", content=None))
        manifest.append(row(tmp_path, "copied.png", "no face"))
        assert done(manifest, "skipped.png", keeps_faceless=False)
        assert not done(manifest, "skipped.png", keeps_faceless=True)
        assert done(manifest, "copied.png", keeps_faceless=True)
        assert not done(manifest, "copied.png", keeps_faceless=False)


def test_a_manifest_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"manifest\.jsonl"):
        Manifest(tmp_path)
