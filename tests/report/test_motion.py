from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from apexflow import process
from apexflow.datasets import read_samm
from apexflow.engine.recipe import Recipe
from apexflow.kernels.encode import ENCODINGS
from apexflow.report import write_report
from apexflow.report.figures import _MOST_PAIRS, Figure, _map
from apexflow.report.motion import alignments, encodings, regions
from apexflow.storage.store import Store, open_store
from tests.conftest import small

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


def picture(figure: Figure | None) -> NDArray[np.uint8]:
    assert figure is not None
    kind, data = figure.uri.split(",")
    assert kind == "data:image/png;base64"
    return np.asarray(cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1))


def test_alignments_are_compared_by_their_false_motion(store: Store, samm_root: Path) -> None:
    clips = list(store.finished())
    figure = alignments(store, clips, samm_root)
    shown = picture(figure)
    assert shown.shape == (3 * (64 + 18 + 4), 4 * (64 + 4), 3)
    assert figure is not None
    per_frame, whole, recipe = map(float, re.findall(r"([\d.]+) px by", figure.caption))
    assert recipe < whole
    assert recipe < per_frame
    assert alignments(store, clips, samm_root / "nowhere") is None


def test_known_still_parts_are_measured_where_they_are_given(store: Store, samm_root: Path) -> None:
    clips = list(store.finished())[:1]
    corner = np.zeros((64, 64), bool)
    corner[:8, :8] = True
    figure = alignments(store, clips, samm_root, stills=[corner])
    assert figure is not None
    assert "where the expression moves nothing" in figure.caption
    other = alignments(store, clips, samm_root)
    assert other is not None
    assert figure.caption != other.caption


def test_regions_are_drawn_and_encodings_shown(store: Store) -> None:
    clips = list(store.finished())
    drawn = regions(store, clips)
    assert drawn is not None
    assert drawn.caption.endswith("with flow of their own: eyes, mouth.")
    assert picture(drawn).std() > 0
    tiles = picture(encodings(store, clips))
    assert tiles.shape == (168 + 18 + 4, len(ENCODINGS) * (168 + 4), 3)


def test_a_report_of_any_recipe_can_be_written(
    store: Store, samm_root: Path, tmp_path: Path
) -> None:
    write_report(store, tmp_path / "full.html", root=samm_root)
    text = (tmp_path / "full.html").read_text(encoding="utf-8")
    for title in ("False motion", "Regions", "Encodings", "Maps: parts", "Maps: all"):
        assert title in text
    values = small(Recipe.load("sequence")).to_dict()
    path = tmp_path / "sequence.zarr"
    catalog = read_samm(samm_root)[:1]
    process(catalog, path, recipe=Recipe.from_dict(values), workers=0, progress=False)
    write_report(open_store(path), tmp_path / "sequence.html")
    text = (tmp_path / "sequence.html").read_text(encoding="utf-8")
    assert "Regions" in text
    assert "Encodings" not in text


def test_a_map_is_shown_whole(store: Store) -> None:
    """One pair: the stored map itself; many: the first pairs below each other, regions beside."""
    index, record = next(store.finished())
    np.testing.assert_array_equal(
        _map(store, "hsv", index, record), store.read("maps/hsv", index, record)
    )
    parts = store.read("maps/parts", index, record)
    shown = _map(store, "parts", index, record)
    assert shown.shape == (4 * (16 + 4), 2 * (16 + 4), 3)
    for pair, region in np.ndindex(4, 2):
        tile = shown[pair * 20 :, region * 20 :][:16, :16]
        np.testing.assert_array_equal(tile, parts[pair, region])
    every = store.read("maps/all", index, record)
    shown = _map(store, "all", index, record)
    assert shown.shape == (min(len(every), _MOST_PAIRS) * 20, 20, 3)
    np.testing.assert_array_equal(shown[20:36, :16], every[1])
