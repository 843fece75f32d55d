"""The player of a look page in a real browser: step, play, speed, the chart and the keys."""

import shutil
from collections.abc import Iterator
from typing import Any

import cv2
import pytest

from apexflow.report.look import write_look
from apexflow.synthetic import ClipTruth, Subject, render

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FRAMES = 12


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    folder = tmp_path_factory.mktemp("player")
    subject = Subject.random(3, size=(200, 160), face=0.5)  # portrait format
    truth = ClipTruth.random(subject, "surprise", seed=1, frames=FRAMES, amplitude=3.0, shift=1)
    (folder / "clip").mkdir()
    for i, frame in enumerate(render(truth)):
        cv2.imwrite(str(folder / "clip" / f"{i:03d}.png"), frame)
    write_look(folder / "clip", folder / "page.html")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1000, "height": 900})
        complaints: list[str] = []
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.goto((folder / "page.html").as_uri())
        yield opened
        browser.close()
    assert complaints == []


def at(page: Any) -> int:
    return int(page.input_value("#seek"))


def test_steps_go_round_and_say_where_they_are(page: Any) -> None:
    page.evaluate("show(0)")
    page.click("#next")
    assert at(page) == 1
    assert page.inner_text("#where").startswith("frame 1,")
    page.click("#back")
    page.click("#back")
    assert at(page) == FRAMES - 1
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowRight")
    assert at(page) == 0


def test_both_pictures_are_painted(page: Any) -> None:
    """In the format of the frames, and of the crop; not blank."""
    page.wait_for_function("document.getElementById('aligned').width === 224")
    sides = page.evaluate(
        "[document.getElementById('raw').width, document.getElementById('raw').height]"
    )
    assert sides == [160, 200]
    for name in ("raw", "aligned"):
        levels = page.evaluate(
            f"(c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size)"
            f"(document.getElementById('{name}'))"
        )
        assert levels > 20, name


def test_play_runs_until_it_is_stopped_and_speed_changes_its_step(page: Any) -> None:
    page.select_option("#speed", "2")
    page.evaluate("show(0)")
    page.click("#play")
    assert page.inner_text("#play") == "Pause"
    page.wait_for_function("now > 2")
    page.select_option("#speed", "0.1")
    assert page.inner_text("#play") == "Pause"
    page.click("#play")
    assert page.inner_text("#play") == "Play"
    assert page.evaluate("timer") is None


def test_a_click_on_the_chart_goes_there(page: Any) -> None:
    page.locator("#chart").scroll_into_view_if_needed()
    box = page.locator("#chart").bounding_box()
    page.mouse.click(box["x"] + 0.98 * box["width"], box["y"] + box["height"] / 2)
    assert at(page) == FRAMES - 1
    cursor = float(page.get_attribute("#cursor", "x1"))
    assert cursor == pytest.approx(page.evaluate("data.chart.right"), abs=1)
