"""The before/after slider, opened and operated in a real browser."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from facerestore.imaging.photo import Photo
from facerestore.report import ReportWriter
from tests.e2e.browser import Browser, find_chromium

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium on this machine")

HOSTILE = (
    "<script>document.title='hacked'</script>\"'><img src=x onerror=\"document.title='hacked'\"> 家族.jpg"
)
RED, BLUE = (220, 30, 30), (30, 30, 220)


def photo(colour: tuple[int, int, int]) -> Photo:
    return Photo.from_array(np.full((480, 640, 3), colour, np.uint8))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with red inputs, blue results and a hostile name."""
    folder = tmp_path_factory.mktemp("report")
    face = {
        "index": 0,
        "box": [200.0, 100.0, 400.0, 300.0],
        "confidence": 0.99,
        "status": "restored",
        "size_px": 400.0,
        "roll_deg": 3.0,
        "facts": {"entry_px": 128.0},
        "identity_distance": 0.41,
        "identity_similarity": 0.66,
    }
    row = {
        "source": HOSTILE,
        "input_sha256": "1",
        "output_sha256": "2",
        "status": "restored",
        "faces": [face],
        "notes": [HOSTILE],
        "error": None,
        "run": {"recipe": "lite", "options": {HOSTILE: HOSTILE}},
    }
    with ReportWriter(folder / "report.html", "Family") as writer:
        writer.add(row, photo(RED), photo(BLUE))
        writer.add(row | {"source": "second.png"}, photo(RED), photo(BLUE))
        return writer.finish()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, report: Path) -> Browser:
    """The browser with the page, as if just opened."""
    browser.events.clear()
    browser.open(report)
    return browser


def near(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.abs(pixels.astype(int) - colour) < 25).all(-1)


def share_of_input(browser: Browser) -> float:
    """How much of the width of the first picture shows the input, as painted on the screen."""
    box = browser.box(".compare")
    row = browser.pixels()[round(box["y"] + box["height"] * 0.8)]
    row = row[round(box["x"]) : round(box["x"] + box["width"])]
    red, blue = near(row, RED), near(row, BLUE)
    assert red.sum() + blue.sum() > 0.95 * len(row)  # the rest is the bar and its shadow
    if red.any() and blue.any():
        assert np.flatnonzero(red).max() < np.flatnonzero(blue).min()  # input left, result right
    return red.sum() / len(row)


def at(browser: Browser, share: float) -> tuple[float, float]:
    box = browser.box(".compare")
    return box["x"] + box["width"] * share, box["y"] + box["height"] * 0.3


def test_half_and_half_at_first(page: Browser) -> None:
    assert share_of_input(page) == pytest.approx(0.5, abs=0.02)


def test_mouse_drags_the_bar(page: Browser) -> None:
    page.mouse("mousePressed", *at(page, 0.5))
    for share in (0.4, 0.3, 0.2):
        page.mouse("mouseMoved", *at(page, share))
    page.mouse("mouseReleased", *at(page, 0.2))
    assert share_of_input(page) == pytest.approx(0.2, abs=0.03)
    page.mouse("mousePressed", *at(page, 0.8))  # a click on the picture takes the bar there
    page.mouse("mouseReleased", *at(page, 0.8))
    assert share_of_input(page) == pytest.approx(0.8, abs=0.03)


def test_finger_drags_the_bar(page: Browser) -> None:
    page.send("Emulation.setTouchEmulationEnabled", enabled=True)
    page.touch("touchStart", at(page, 0.5))
    for share in (0.45, 0.38, 0.3):
        page.touch("touchMove", at(page, share))
    page.touch("touchEnd")
    page.send("Emulation.setTouchEmulationEnabled", enabled=False)
    assert share_of_input(page) == pytest.approx(0.3, abs=0.04)


def test_keys_move_the_bar_and_the_focus_is_seen(page: Browser) -> None:
    before = page.pixels()
    page.key("Tab", 9)
    assert page.run("document.activeElement.id") == "slider-1"
    assert (page.pixels() != before).any()
    page.key("Home", 36)
    assert share_of_input(page) < 0.06
    page.key("End", 35)
    assert share_of_input(page) > 0.94
    page.key("ArrowLeft", 37)
    assert page.run("document.activeElement.value") == "99.5"
    assert page.run("document.activeElement.getAttribute('aria-valuetext')") == "100 percent before"


def test_it_has_a_name_and_a_value_for_those_who_cannot_see_it(page: Browser) -> None:
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    sliders = [node for node in nodes if node.get("role", {}).get("value") == "slider"]
    assert [node["name"]["value"] for node in sliders] == [
        f"Before and after: {HOSTILE}",
        "Before and after: second.png",
    ]
    images = [node["name"]["value"] for node in nodes if node.get("role", {}).get("value") == "image"]
    assert images[:2] == [f"Restored: {HOSTILE}", f"Input: {HOSTILE}"]


def test_names_stay_text_and_nothing_is_refused_or_fetched(page: Browser) -> None:
    assert page.run("document.title") == "Family"
    assert page.run("document.querySelector('h2').textContent") == HOSTILE
    assert page.run("document.scripts.length") == 1
    requests = [
        e["params"]["request"]["url"] for e in page.events if e["method"] == "Network.requestWillBeSent"
    ]
    assert all(url.startswith(("file:", "data:")) for url in requests)
    complaints = [e for e in page.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert complaints == []


def test_a_script_that_got_in_would_not_run(page: Browser) -> None:
    page.run(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"document.title = 1\">')"
    )
    page.run(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 2'}))"
    )
    page.pixels()
    assert page.run("document.title") == "Family"


def test_dark_and_narrow_screens(page: Browser) -> None:
    def paper() -> int:
        return int(page.pixels()[2, 2].sum())

    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    dark = paper()
    page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    assert dark < 150 < 600 < paper()
    page.send("Emulation.setDeviceMetricsOverride", width=360, height=700, deviceScaleFactor=1, mobile=True)
    assert page.run("document.documentElement.scrollWidth") <= 360
    assert page.box(".compare")["width"] <= 330
    page.send("Emulation.clearDeviceMetricsOverride")
