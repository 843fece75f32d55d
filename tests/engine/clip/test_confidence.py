"""The confidence that a recipe keeps: the kernels', in the store, and in maps made by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray

from apexflow.catalog import Catalog
from apexflow.engine.clip import process_clip
from apexflow.engine.clip.flow import make_map
from apexflow.engine.recipe import Recipe
from apexflow.engine.run import process
from apexflow.errors import ApexflowError
from apexflow.kernels import clg, clg_sequence, normalize_light
from apexflow.storage.checks import verify
from apexflow.storage.store import open_store
from tests.conftest import small

WINDOWS = ["onset-apex", "steps-2", "consecutive"]


def recipe_of(noise: Any = "confidence", **flow: Any) -> Recipe:
    values = small(Recipe.load("default"), windows=WINDOWS).to_dict()
    values["temporal"] |= {"reach_ms": 10.0}
    values["flow"] |= {"keep_confidence": True, **flow}
    wanted = {"encoding": "hsv", "size": [28, 28], "noise": noise}
    values["maps"] = {name: wanted | {"window": name} for name in WINDOWS}
    return Recipe.from_dict(values)


def test_it_is_that_of_the_kernels(catalog: Catalog) -> None:
    result = process_clip(catalog[0], recipe_of())
    crops = normalize_light(result.aligned.crops)
    row = {number: i for i, number in enumerate(result.aligned.numbers)}
    onset, apex = (result.plan.key_frames[name] for name in ("onset", "apex"))
    near = [n for n in result.plan.interval if min(abs(n - onset), abs(n - apex)) <= 2]
    many = clg_sequence(
        crops[[row[n] for n in near]],
        near.index(onset),
        near.index(apex),
        numbers=near,
        reach=2,
        confidence=True,
    )
    found = result.confidence["onset-apex"]
    np.testing.assert_allclose(found, many.confidence, atol=5e-4)
    for sure, (first, second) in zip(
        result.confidence["consecutive"], result.plan.pairs["consecutive"], strict=True
    ):
        _, expected = clg(crops[row[first]], crops[row[second]], confidence=True)
        np.testing.assert_allclose(sure, expected, atol=5e-4)
    plain = process_clip(catalog[0], recipe_of(0.0, keep_confidence=False))
    assert plain.confidence == {}
    for window in WINDOWS:
        np.testing.assert_array_equal(plain.flow[window], result.flow[window])


def test_a_store_holds_it_and_maps_come_out_of_it_again(tmp_path: Path, catalog: Catalog) -> None:
    recipe, path = recipe_of(), tmp_path / "s.zarr"
    clips = Catalog([catalog[0], catalog[1]])
    assert not process(clips, path, recipe=recipe, workers=0, progress=False).failed
    store = open_store(path)
    assert verify(store) == []
    record = store.record(0)
    assert record is not None
    for window in WINDOWS:
        flow = store.read(f"flow/{window}", 0, record)
        sure = store.read(f"confidence/{window}", 0, record)
        assert (sure.dtype, sure.shape) == (np.float16, (*flow.shape[:-3], 64, 64))
        assert 0 <= sure.min() < sure.max() <= 1
        made = make_map(recipe.maps[window], flow, confidence=sure)
        np.testing.assert_array_equal(made, store.read(f"maps/{window}", 0, record))
    group = xarray.open_zarr(path, group="confidence", consolidated=False)
    assert group["onset-apex"].dims == ("clip", "y", "x")
    assert group["onset-apex"].attrs["units"] == "1"
    assert group["clip"].values.tolist() == [clip.name for clip in clips]
    assert group["steps-2"].dims == ("clip", "steps-2_step", "y", "x")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"flow": {"keep_confidence": False}}, r"maps.onset-apex.noise: 'confidence' needs flow"),
        ({"flow": {"method": "tvl1"}}, "keep_confidence: method 'tvl1' has no confidence"),
        ({"maps": {"onset-apex": {"noise": "sure"}}}, "noise"),
        (
            {"maps": {"onset-apex": {"regions": True}}},
            "'confidence' needs that of the full face, and regions keep none",
        ),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], rule: str) -> None:
    values = recipe_of().to_dict()
    if "flow" in change:
        values["flow"] |= change["flow"]
    if change.get("flow", {}).get("method"):
        values["temporal"]["method"] = "pair"
    for name, wanted in change.get("maps", {}).items():
        values["maps"][name] |= wanted
    with pytest.raises(ApexflowError, match=rule):
        Recipe.from_dict(values)


def test_recipes_without_it_keep_their_hash() -> None:
    values = Recipe.load("default").to_dict()
    del values["flow"]["keep_confidence"]
    assert Recipe.from_dict(values).hash == Recipe.load("default").hash
    kept = Recipe.from_dict(values | {"flow": values["flow"] | {"keep_confidence": True}})
    assert kept.hash != Recipe.load("default").hash
