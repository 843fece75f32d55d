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


def test_the_report_is_self_contained_and_shows_everything(folder: Path) -> None:
    page = Page((folder / "report.html").read_text())
    assert all(source.startswith("data:image/") for source in page.sources)
    shown = ("Before alignment", "After alignment", "First frame of each clip")
    shown += ("Onset, apex, offset", "Animation", "Maps: hsv", "From frames to map: hsv")
    for title in (*shown, "Against the known motion", "032_3_1", "apex 1930 lies before onset"):
        assert title in page.text


def test_a_report_without_the_raw_frames_leaves_out_what_needs_them(
    folder: Path, tmp_path: Path
) -> None:
    write_report(open_store(folder / "samm.zarr"), tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text())
    assert "Before alignment" not in page.text
    assert "After alignment" in page.text


def test_the_demo_touches_no_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ApexflowError, match=r"holds thesis\.tex"):
        run_demo(tmp_path)
    with pytest.raises(ApexflowError, match="is a file"):
        run_demo(tmp_path / "thesis.tex")
