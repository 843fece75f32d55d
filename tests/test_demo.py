from html.parser import HTMLParser
from pathlib import Path

import pytest

from apexflow.demo import run_demo
from apexflow.errors import ApexflowError
from apexflow.report import write_report
from apexflow.storage.store import open_store


class Page(HTMLParser):
    """Collects what a page loads and shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration itself, at its real size of frames, with shorter clips."""
    place = tmp_path_factory.mktemp("demo")
    demo = run_demo(place, workers=0, progress=False, clips=4, frames=8)
    assert (demo.summary.done, len(demo.summary.failed)) == (4, 2)
    assert [check.name for check in demo.checks if not check.passed] == []
    return place


def test_the_report_loads_nothing_from_elsewhere_and_shows_everything(folder: Path) -> None:
    page = Page((folder / "report.html").read_text())
    assert all(source.startswith(("data:image/", "#")) for source in page.sources)
    for title in ("Before and after alignment", "False motion", "Against the known motion"):
        assert title in page.text
    assert "apex 1930 lies before onset" in page.text
    clips = sorted((folder / "report_files" / "clips").glob("*.html"))
    assert len(clips) == 6
    pages = [Page(clip.read_text()) for clip in clips]
    assert all(
        source.startswith(("data:image/", "../style.css", "../clip.js"))
        for clip in pages
        for source in clip.sources
    )
    for title in ("Regions", "Flow onset-apex", "Map hsv", "Every encoding"):
        assert sum(title in clip.text for clip in pages) == 4


def test_a_report_without_the_raw_frames_leaves_out_what_needs_them(
    folder: Path, tmp_path: Path
) -> None:
    write_report(open_store(folder / "samm.zarr"), tmp_path / "page.html", pages=1)
    page = Page((tmp_path / "page.html").read_text())
    assert "face found in each frame" not in page.text
    assert "template frame, aligned" in page.text
    assert "1 clips can be opened" in page.text
    assert len(list((tmp_path / "page_files" / "clips").glob("*.html"))) == 1


def test_the_demo_touches_no_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ApexflowError, match=r"holds thesis\.tex"):
        run_demo(tmp_path)
    with pytest.raises(ApexflowError, match="is a file"):
        run_demo(tmp_path / "thesis.tex")
