"""What a report says and shows, against what the store holds."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from apexflow import process
from apexflow.datasets import read_samm
from apexflow.engine.recipe import Recipe
from apexflow.kernels.encode import ENCODINGS, flow_colours
from apexflow.report import alignment, clip, write_report
from apexflow.report.entries import Entry, flagged_first, read_entries, spark
from apexflow.report.methods import methods
from apexflow.report.pictures import Figure, Tile
from apexflow.storage.store import Store, open_store
from tests.conftest import small
from tests.storage.stores import make_store, random_clips

CHAIN = "onset-mid-apex-mid-offset"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, samm_root: Path) -> Store:
    """A store with everything that a report can meet: steps, regions, maps of both."""
    values = small(Recipe.load("default")).to_dict()
    values["windows"] = [CHAIN, "onset-apex", "consecutive"]
    values["regions"]["names"] = ["eyes", "mouth"]
    both = {"encoding": "uv", "size": [16, 16]}
    values["maps"] = {
        "hsv": {"encoding": "hsv", "window": "onset-apex", "size": [28, 28]},
        "parts": both | {"window": CHAIN, "regions": True},
        "all": both | {"window": "consecutive"},
    }
    path = tmp_path_factory.mktemp("report") / "samm.zarr"
    catalog = read_samm(samm_root)[:2]
    process(catalog, path, recipe=Recipe.from_dict(values), workers=0, progress=False)
    return open_store(path)


@pytest.fixture(scope="module")
def entry(store: Store) -> Entry:
    return read_entries(store)[0]


def pixels(tile: Tile) -> NDArray[np.uint8]:
    """Return a tile's picture as RGB."""
    data = np.frombuffer(base64.b64decode(tile.uri.split(",")[1]), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))[..., ::-1]


def figure(store: Store, entry: Entry, title: str) -> Figure:
    found = clip.figures(store, entry, clip.read_pictures(store, entry))
    return next(one for one in found if one.title == title)


def test_maps_are_shown_whole_and_as_stored(store: Store, entry: Entry) -> None:
    """One pair: the map itself; many: the first pairs in rows, regions beside each other."""
    assert entry.record is not None
    ((only,),) = figure(store, entry, "Map hsv").rows
    np.testing.assert_array_equal(pixels(only), store.read("maps/hsv", 0, entry.record))
    parts = store.read("maps/parts", 0, entry.record)
    rows = figure(store, entry, "Map parts").rows
    assert [[tile.caption for tile in row] for row in rows] == [["eyes", "mouth"]] * 4
    for pair, region in np.ndindex(4, 2):
        np.testing.assert_array_equal(pixels(rows[pair][region]), parts[pair, region])
    every = store.read("maps/all", 0, entry.record)
    rows = figure(store, entry, "Map all").rows
    assert len(rows) == 8
    np.testing.assert_array_equal(pixels(rows[7][0]), every[7])


def test_flow_has_the_colours_of_its_wheel_and_their_scale(store: Store, entry: Entry) -> None:
    assert entry.record is not None
    flow = store.read("flow/onset-apex", 0, entry.record)
    longest = float(np.percentile(np.hypot(*flow), 99))
    shown = figure(store, entry, "Flow onset-apex")
    colours, arrows, wheel = shown.rows[0]
    np.testing.assert_array_equal(pixels(colours), flow_colours(flow, longest))
    assert wheel.caption == f"rim: {longest:.2g} px"
    assert f"{longest:.2g} px of the crop" in shown.shows
    assert arrows.overlay.count("<path") > 0
    assert len(figure(store, entry, f"Flow {CHAIN}").rows) == 4


def test_each_encoding_and_each_region_is_named_in_text(store: Store, entry: Entry) -> None:
    (tiles,) = figure(store, entry, "Every encoding").rows
    assert [tile.caption for tile in tiles] == list(ENCODINGS)
    regions = figure(store, entry, "Regions")
    assert "with flow of their own: eyes, mouth" in regions.shows
    drawn = regions.rows[0][0].overlay
    assert re.findall(r">(\w+)</text>", drawn) == list(store.layout.region_boxes)


def test_alignments_are_compared_by_their_false_motion(store: Store, samm_root: Path) -> None:
    entries = read_entries(store)
    found = alignment.false_motion(store, entries, samm_root)
    assert found is not None
    assert [len(row) for row in found.rows] == [4, 4, 4]
    per_frame, whole, recipe = map(float, re.findall(r"([\d.]+) px by", found.shows))
    assert recipe < min(whole, per_frame)
    assert alignment.false_motion(store, entries, samm_root / "nowhere") is None
    corner = np.zeros((64, 64), bool)
    corner[:8, :8] = True
    known = alignment.false_motion(store, entries[:1], samm_root, stills=[corner])
    assert known is not None
    assert "where the expression moves nothing" in known.shows


def test_methods_say_what_the_recipe_did(store: Store) -> None:
    said = methods(store, read_entries(store))
    assert "2 clips of 1 people (samm) were processed with apexflow" in said.paragraph
    assert "shift, rotation and scale" in said.paragraph
    assert "combined local-global flow [2] (alpha = 100.0" in said.paragraph
    assert [text.split(",")[0] for text in said.references[1:]] == ["Bruhn"]


@pytest.mark.parametrize("recipe", ["sequence", "seed-samm", "apexnet"])
def test_a_report_of_any_recipe_can_be_written(
    samm_root: Path, tmp_path: Path, recipe: str
) -> None:
    path = tmp_path / "samm.zarr"
    catalog = read_samm(samm_root)[:1]
    process(catalog, path, recipe=small(Recipe.load(recipe)), workers=0, progress=False)
    write_report(open_store(path), tmp_path / "report.html")
    text = (tmp_path / "report_files" / "clips" / "00000.html").read_text(encoding="utf-8")
    assert ("Every encoding" in text) == (recipe != "sequence")


def test_rows_hold_what_records_say(store: Store, tmp_path: Path) -> None:
    write_report(store, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])  # type: ignore[index]
    records = [record for record in store.records() if record is not None]
    assert [tuple(row["key"]) for row in data["rows"]] == [record.key for record in records]
    assert [row["score"] for row in data["rows"]] == [
        pytest.approx(min(record.score), rel=1e-3) for record in records
    ]
    assert all(len(row["motion"]) == 9 for row in data["rows"])


def test_names_cannot_write_into_the_page(tmp_path: Path) -> None:
    clips = random_clips(2, frames=True)
    clips[0].name = '</script><img src=x onerror="alert(1)">'
    make_store(tmp_path / "s.zarr", clips)
    write_report(open_store(tmp_path / "s.zarr"), tmp_path / "r.html")
    for page in (tmp_path / "r.html", tmp_path / "r_files" / "clips" / "00000.html"):
        assert "<img src=x" not in page.read_text(encoding="utf-8")


def test_flagged_clips_come_first_then_failed_ones(tmp_path: Path) -> None:
    clips = random_clips(4, frames=True)
    clips[1].status = "failed"
    make_store(tmp_path / "s.zarr", clips)
    entries = read_entries(open_store(tmp_path / "s.zarr"))
    object.__setattr__(entries[3], "flags", "blur=0.31")
    assert [entry.index for entry in flagged_first(entries)] == [3, 1, 0, 2]


def test_a_curve_in_a_row_keeps_its_extremes() -> None:
    values = np.zeros(1000)
    values[617] = 1
    assert max(spark(values.tolist(), 0, 1, keep="high")) == "z"
    assert min(spark((1 - values).tolist(), 0, 1, keep="low")) == "0"
    assert spark([0.0, 0.5, 1.0], 0, 1, keep="low") == "0iz"
    assert spark([], 0, 1, keep="low") == ""
