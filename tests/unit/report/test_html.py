"""The page: nothing in it but what belongs there, and never half a page."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from facerestore.core.errors import OutputError
from facerestore.imaging.photo import Photo
from facerestore.report.html import WARNING, ReportWriter

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> 家族.jpg"


def plain(colour: tuple[int, int, int], height: int = 60, width: int = 90) -> Photo:
    return Photo.from_array(np.full((height, width, 3), colour, np.uint8))


def row(source: str = "a.jpg", **changes) -> dict:
    face = {
        "index": 0,
        "box": [20.0, 10.0, 60.0, 50.0],
        "landmarks": [],
        "confidence": 0.987,
        "status": "restored",
        "size_px": 88.4,
        "roll_deg": -12.0,
        "facts": {"entry_px": 128.0},
        "identity_distance": 0.4321,
        "identity_similarity": 0.6399,
    }
    other = face | {"index": 1, "status": "too small", "identity_distance": None, "identity_similarity": None}
    standard = {
        "source": source,
        "input_sha256": "1",
        "output_sha256": "2",
        "status": "restored",
        "faces": [face, other],
        "notes": ["first of 3 frames"],
        "error": None,
        "run": {"recipe": "lite", "seed": 7, "options": {"kind": "RestorationOptions", "strength": 1.0}},
    }
    return standard | changes


class Page(HTMLParser):
    """Tags, attributes and text as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def write(path: Path, *rows: dict, before: Photo | None = None, after: Photo | None = None) -> Page:
    with ReportWriter(path) as report:
        for entry in rows:
            report.add(entry, before, after)
        report.finish()
    return Page(path.read_text(encoding="utf-8"))


def test_names_and_notes_are_text_whatever_is_in_them(tmp_path: Path) -> None:
    failed = row(HOSTILE, status="failed", error=HOSTILE, faces=[], notes=[HOSTILE], output_sha256=None)
    hostile = row(HOSTILE, run={"recipe": HOSTILE, "options": {HOSTILE: HOSTILE}}, notes=[HOSTILE])
    page = write(tmp_path / "r.html", hostile, failed, before=plain((200, 0, 0)), after=plain((0, 0, 200)))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.text.count(HOSTILE) >= 5


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    page = write(tmp_path / "r.html", row(), before=plain((200, 0, 0)), after=plain((0, 0, 200)))
    sources = [
        value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")
    ]
    assert len(sources) == 4
    assert all(source and source.startswith("data:image/jpeg;base64,") for source in sources)
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(", text)
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_numbers_the_run_and_the_warning_are_there(tmp_path: Path) -> None:
    page = write(tmp_path / "r.html", row(), before=plain((200, 0, 0)), after=plain((0, 0, 200)))
    for words in (WARNING, "0.43", "0.64", "128", "-12°", "too small", "first of 3 frames", "strength: 1.0"):
        assert words in page.text
    assert "1 picture: 1 restored. 2 faces: 1 restored, 1 too small." in page.text
    slider = next(attributes for tag, attributes in page.tags if tag == "input")
    assert slider["aria-label"] == "Before and after: a.jpg"


def test_a_copied_picture_has_no_slider_and_a_failed_one_says_why(tmp_path: Path) -> None:
    copied = row(output_sha256="1", status="no face", faces=[], notes=["no face found"])
    page = write(tmp_path / "r.html", copied, before=plain((9, 9, 9)), after=plain((9, 9, 9)))
    assert [tag for tag, _ in page.tags].count("img") == 1
    assert "input" not in [tag for tag, _ in page.tags]
    failed = row(status="failed", error="a.jpg: truncated", faces=[], output_sha256=None)
    assert "Failed: a.jpg: truncated" in write(tmp_path / "f.html", failed).text


def test_hundreds_of_large_pictures_make_a_page_that_opens(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (75, 100, 3), np.uint8)
    large = Photo.from_array(np.repeat(np.repeat(noise, 40, 0), 40, 1))  # 12 megapixels, hard to compress
    write(tmp_path / "r.html", row(faces=[]), before=large, after=large)
    assert (tmp_path / "r.html").stat().st_size < 600_000  # real photos: a fifth of it


def test_the_enlarged_output_is_shown_over_its_input_at_one_size(tmp_path: Path) -> None:
    page = write(tmp_path / "r.html", row(), before=plain((200, 0, 0)), after=plain((0, 0, 200), 120, 180))
    after, before = [attributes for tag, attributes in page.tags if tag == "img"][:2]
    assert (after["width"], after["height"]) == (before["width"], before["height"]) == ("180", "120")


def test_without_finish_nothing_stays_and_an_older_page_survives(tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    path.write_text("older")
    with pytest.raises(RuntimeError), ReportWriter(path) as report:
        report.add(row())
        raise RuntimeError("interrupted")
    assert [entry.name for entry in tmp_path.iterdir()] == ["r.html"]
    assert path.read_text() == "older"


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="missing"):
        ReportWriter(tmp_path / "missing" / "r.html")
