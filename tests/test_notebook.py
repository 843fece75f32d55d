"""The tutorial's cells, and what a notebook shows of each object."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import apexflow as af
from apexflow.catalog import Catalog
from apexflow.errors import ApexflowError
from tests.storage.stores import make_store, random_clips

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial.ipynb"


def test_the_tutorials_code_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In this process and on fewer frames; the notebook as it is runs under a mark of its own."""
    cells = json.loads(TUTORIAL.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    code = code.replace("subjects=3, clips=9, frames=12", "subjects=2, clips=4, frames=4")
    code = code.replace("epochs=3", "epochs=1")
    names: dict[str, Any] = {}
    with contextlib.chdir(tmp_path):
        exec(compile(code, str(TUTORIAL), "exec"), names)
    assert names["summary"].done == 4
    assert len(names["summary"].failed) == 2
    assert "uf1" in capsys.readouterr().out.lower()


@pytest.mark.slow
def test_the_tutorial_runs_as_a_notebook(tmp_path: Path) -> None:
    if not all(map(importlib.util.find_spec, ("nbclient", "ipykernel"))):
        pytest.skip("pip install 'apexflow[notebook]'")
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(TUTORIAL, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("text/html" in output.get("data", {}) for output in shown) >= 3
    assert sum("image/png" in output.get("data", {}) for output in shown) == 2


@pytest.fixture
def store(tmp_path: Path) -> af.storage.store.Store:
    clips = random_clips(3, frames=True)
    clips[1].status = "failed"
    clips[2].name = "<b>"
    make_store(tmp_path / "s.zarr", clips)
    return af.open(tmp_path / "s.zarr")


def test_a_store_shows_itself_and_its_table(store: af.storage.store.Store) -> None:
    assert "2 done, 1 failed" in repr(store)
    assert "&lt;b&gt;" in store._repr_html_()
    assert "<b>" not in store._repr_html_()
    table = store.clips
    assert table["message"] == ["", "no face", ""]
    assert table[1]["label"] is None
    assert [row["clip"] for row in table[:2]] == ["c0", "c1"]
    assert "no face" in repr(table)
    frame = table.to_pandas()
    assert list(frame["clip"]) == table["clip"]
    assert frame["label"].isna().all()
    assert frame["onset"].sum() == 30
    with pytest.raises(ApexflowError, match="no column apx"):
        table["apx"]


def test_plots_show_what_is_stored(store: af.storage.store.Store) -> None:
    record = store.record(0)
    assert record is not None
    figure = store.plot("c0")
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown][-1] == "map hsv"
    np.testing.assert_array_equal(shown[0].images[0].get_array(), store.frames(record)[0])
    np.testing.assert_array_equal(
        shown[-1].images[0].get_array(), store.read("maps/hsv", 0, record)
    )
    flow = store.read("flow/apex-offset", 0, record)
    figure = store.plot_flow(0, window="apex-offset")
    colours, arrows, wheel = figure.axes
    assert colours.get_title() == "flow apex-offset"
    longest = np.percentile(np.hypot(*flow), 99)
    assert float(re.findall(r"[\d.]+", wheel.get_title())[0]) == pytest.approx(longest, rel=0.05)
    quiver = arrows.collections[0]
    np.testing.assert_allclose(quiver.U[0], flow[0, 1, 1])
    np.testing.assert_allclose(quiver.V[0], flow[1, 1, 1])


def test_what_cannot_be_plotted_is_said(store: af.storage.store.Store) -> None:
    with pytest.raises(ApexflowError, match=r"clip made/01/c1 failed: no face"):
        store.plot("01/c1")
    with pytest.raises(ApexflowError, match="window must be one of onset-apex, apex-offset"):
        store.plot_flow(0, window="apex")
    with pytest.raises(ApexflowError, match=r"no clip 'made/00/c9' in .*; is it made/00/c0"):
        store.plot(("made", "00", "c9"))
    with pytest.raises(ApexflowError, match="row must be below 3"):
        store.plot(3)


def test_a_catalog_finds_clips_by_name(catalog: Catalog) -> None:
    clip = catalog[0]
    assert catalog[f"{clip.subject}/{clip.name}"] is clip
    assert catalog[str(clip)] is clip
    assert catalog[clip.name] is clip
    with pytest.raises(ApexflowError, match=f"is it {clip}"):
        catalog[clip.name + "x"]
    assert repr(catalog) == str(catalog)
    assert f"<td>{clip.name}</td>" in catalog._repr_html_()
    twice = Catalog([af.Clip(dataset=d, subject="1", name="a") for d in ("x", "y")])
    with pytest.raises(ApexflowError, match="may be any of x/1/a, y/1/a"):
        twice["1/a"]
    assert twice["y/1/a"].dataset == "y"


def test_a_data_set_says_what_it_holds(store: af.storage.store.Store) -> None:
    dataset = af.ClipDataset(store.name, maps="hsv")
    assert repr(dataset).splitlines()[0].endswith("2 clips of 2 people")
    assert "fear 1, rage 1" in repr(dataset)
