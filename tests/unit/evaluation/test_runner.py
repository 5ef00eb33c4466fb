"""An evaluation from Python: what one metric cannot measure, what a page shows, what stays private."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from facerestore.evaluation import PAPERS, Column, Protocol, Report, evaluate
from facerestore.evaluation.page import worst_pictures
from facerestore.evaluation.protocol import ALL
from facerestore.imaging.write import write_image

PAIRS = Protocol(
    name="pairs", columns=(Column(metric="psnr", against="hq"), Column(metric="niqe-basicsr")), distances=()
)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Five pairs; the third sharp one is grey, whose NIQE alone has no number."""
    random = torch.Generator().manual_seed(0)
    for number in range(5):
        hq = torch.rand(1, 3, 200, 200, generator=random)
        noise = torch.randn(hq.shape, generator=random) * 0.02 * (number + 1)
        for name, image in (("hq", hq), ("restored", (hq + noise).clamp(0, 1))):
            (tmp_path / name).mkdir(exist_ok=True)
            write_image(tmp_path / name / f"{number}.png", image)
    Image.new("RGB", (200, 200), (128, 128, 128)).save(tmp_path / "restored" / "2.png")
    return tmp_path


def run(folders: Path, protocol: Protocol = PAIRS) -> Report:
    found = evaluate(
        protocol, folders / "restored", hq=folders / "hq", output_dir=folders / "out", device="cpu"
    )
    assert found is not None
    return found


def test_a_cell_that_cannot_be_measured_is_empty_named_and_makes_the_mean_partial(folders: Path) -> None:
    report = run(folders)
    grey = next(row for row in report.rows if row.key == "2")
    assert set(grey.values) == {"psnr"} and grey.errors == {"niqe-basicsr": "is nan"}
    mean = report.table[ALL]["niqe-basicsr"]
    assert (mean.measured, mean.expected) == (4, 5)
    assert any("niqe-basicsr of 4 of 5 pictures" in reason for reason in report.partial)
    assert [(each.kind, each.key) for each in report.problems] == [("not measured", "2")]
    assert "(4/5)" in report.markdown()
    line = next(
        line for line in (folders / "out" / "pictures.csv").read_text().splitlines() if line.startswith("2,")
    )
    assert ",,niqe-basicsr: is nan" in line


def test_psnr_falls_with_the_noise_and_the_worst_is_named_with_the_reason(folders: Path) -> None:
    report = run(folders)
    values = [row.values["psnr"] for row in report.rows if row.key != "2"]
    assert values == sorted(values, reverse=True)
    (row, reason) = worst_pictures(report)[0]
    assert row.key == "2" and "psnr" in reason and "the worst of 5" in reason


def test_a_batch_of_other_pictures_changes_nothing(folders: Path) -> None:
    whole = {row.key: dict(row.values) for row in run(folders).rows}
    for number in (0, 1, 3):
        for name in ("restored", "hq"):
            (folders / name / f"{number}.png").unlink()
    (folders / "out" / "rows-0.jsonl").unlink()
    for row in run(folders).rows:
        assert row.values == pytest.approx(whole[row.key], abs=1e-4)


def test_mean_and_spread_are_matched_only_where_asked(folders: Path) -> None:
    with Image.open(folders / "hq" / "0.png") as image:
        image.point(lambda value: value * 0.5 + 20).save(folders / "restored" / "0.png")
    plain = {row.key: row.values["psnr"] for row in run(folders).rows}
    matched = {row.key: row.values["psnr"] for row in run(folders, replace(PAIRS, match_mean_std=True)).rows}
    assert plain["0"] < 20 < 35 < matched["0"]


def test_names_are_text_in_the_page_and_reports_hold_no_place_of_this_machine(folders: Path) -> None:
    hostile = "<img src=x onerror=alert(1)>.png"
    for name in ("restored", "hq"):
        (folders / name / "1.png").rename(folders / name / hostile)
    (folders / "restored" / "3.png").write_bytes(b"no picture")
    run(folders, replace(PAPERS, columns=(*PAIRS.columns, Column(metric="musiq"))))
    assert "restored: 3.png" in (folders / "out" / "report.md").read_text()
    page = (folders / "out" / "report.html").read_text()
    assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "default-src 'none'" in page and "script-src 'none'" in page
    for name in ("report.html", "report.md", "report.json", "pictures.csv"):
        assert str(folders) not in (folders / "out" / name).read_text()
