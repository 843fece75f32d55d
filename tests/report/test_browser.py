"""The report in a real browser: it opens, sorts, filters, marks, and shows a clip."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apexflow.catalog import Catalog, Clip
from apexflow.marks import read_marks
from apexflow.report import write_report
from apexflow.storage.dataset import ClipDataset
from apexflow.storage.store import open_store
from tests.storage.stores import make_store, random_clips

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("browser")
    clips = random_clips(105, frames=True, side=16)
    for clip in clips:
        clip.frames, clip.roi = clip.frames[:3], {}
    for clip in clips[::50]:
        clip.status = "failed"
    make_store(place / "made.zarr", clips)
    write_report(open_store(place / "made.zarr"), place / "report.html", pages=20)
    return place


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, folder: Path) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1200, "height": 800})
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto((folder / "report.html").as_uri())
    yield opened
    context.close()
    assert complaints == []


def names(page: Any) -> list[str]:
    found = page.locator("#clips-table tbody td:nth-child(2)").all_inner_texts()
    return [str(name) for name in found]


def test_clips_are_sorted_and_filtered(page: Any) -> None:
    assert names(page)[:4] == ["made/00/c0", "made/02/c50", "made/00/c100", "made/01/c1"]
    assert page.inner_text("#count") == "100 of 105 clips"
    page.click("#more")
    assert len(names(page)) == 105
    page.click("[data-sort=name]")
    assert names(page)[:2] == ["made/00/c0", "made/00/c4"]
    page.click("[data-sort=name]")
    assert names(page)[0] == "made/03/c103"
    page.fill("#find", "c12 fear")
    assert set(names(page)) == {f"made/0{i % 4}/c{i}" for i in (12,)}
    page.fill("#find", "")
    page.select_option("#which", "failed")
    assert len(names(page)) == 3


def test_marks_are_kept_saved_and_leave_clips_out(page: Any, folder: Path, tmp_path: Path) -> None:
    row = page.locator("#clips-table tr", has_text="made/01/c1").first
    row.get_by_role("button", name="bad").click()
    row = page.locator("#clips-table tr", has_text="made/02/c2").first
    row.get_by_role("button", name="good").click()
    row.get_by_role("textbox").fill('=hand, "left"')
    row.get_by_role("textbox").press("Tab")
    page.reload()
    page.select_option("#which", "marked")
    assert len(names(page)) == 2
    with page.expect_download() as started:
        page.click("#export")
    path = tmp_path / "marks.csv"
    started.value.save_as(path)
    marks = {mark.clip: mark for mark in read_marks(path)}
    assert {name: mark.mark for name, mark in marks.items()} == {"c1": "bad", "c2": "good"}
    assert marks["c2"].note == '\'=hand, "left"'
    whole = ClipDataset(folder / "made.zarr")
    less = ClipDataset(folder / "made.zarr", exclude=path)
    assert {sample.clip for sample in whole.samples} - {s.clip for s in less.samples} == {"c1"}
    # As `apexflow process --exclude` takes them.
    catalog = Catalog(
        Clip(dataset=s.dataset, subject=s.subject, name=s.clip) for s in whole.samples
    )
    assert {c.name for c in catalog} - {c.name for c in catalog.without(path)} == {"c1"}
    page.evaluate("localStorage.clear()")
    page.reload()
    page.set_input_files("#import", path)
    page.select_option("#which", "marked")
    page.wait_for_function("document.querySelectorAll('#clips-table tbody tr').length === 2")


def test_a_click_opens_a_clip_that_plays(page: Any) -> None:
    page.get_by_role("link", name="made/01/c1", exact=True).click()
    clip = page.frame_locator("#clip")
    clip.get_by_role("heading", name="made/01/c1").wait_for()
    first = clip.locator("#frame").get_attribute("src")
    clip.locator("#position").fill("2")
    assert clip.locator("#number").inner_text() == "frame 12 (offset)"
    assert clip.locator("#frame").get_attribute("src") != first
    page.click("#next")
    clip.get_by_role("heading", name="made/02/c2").wait_for()
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()


def test_paper_has_the_columns_names_and_every_picture(page: Any, tmp_path: Path) -> None:
    page.pdf(path=tmp_path / "page.pdf")  # what printing does first
    assert page.evaluate("document.querySelectorAll('img[loading=lazy]').length") == 0
    page.emulate_media(media="print")
    assert page.locator("[data-sort=score]").is_visible()
    assert not page.locator("#export").is_visible()
    page.set_viewport_size({"width": 718, "height": 1000})  # A4 less its margins
    assert page.evaluate("document.documentElement.scrollWidth") <= 718


def test_every_picture_has_a_text_and_nothing_is_too_wide_for_a_phone(page: Any) -> None:
    without = "[...document.images].filter((image) => !image.alt).length"
    assert page.evaluate(without) == 0
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
