"""Comparing stores, and filling them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import zarr

from apexflow.catalog import Catalog
from apexflow.engine.recipe import Recipe
from apexflow.engine.run.task import Task, clip_row, layout
from apexflow.storage.create import create_store

# Seconds differ from run to run; every other array must not.
NOT_COMPARED = {"clips/timings"}


def assert_same_arrays(first: str | Path, second: str | Path, *, but: Collection[str] = ()) -> None:
    """Fail unless both stores hold the same arrays with the same bytes, ``but`` for some."""
    one, two = _arrays(first), _arrays(second)
    assert sorted(one) == sorted(two)
    for path, array in one.items():
        if path in NOT_COMPARED or path in but:
            continue
        a, b = np.asarray(array[...]), np.asarray(two[path][...])
        assert a.dtype == b.dtype, path
        if a.dtype.kind in "T":
            assert a.tolist() == b.tolist(), path
        else:
            assert a.tobytes() == b.tobytes(), path


def _arrays(path: str | Path) -> dict[str, zarr.Array]:
    group = zarr.open_group(str(path), mode="r")
    return {
        name: node for name, node in group.members(max_depth=None) if isinstance(node, zarr.Array)
    }


def many_tasks(path: Path, catalog: Catalog, recipe: Recipe, count: int) -> list[Task]:
    """Make a store, and tasks that put the first clip, each time by another name, into its rows."""
    made = create_store(path, layout=layout(recipe), recipe={}, recipe_hash="", provenance={})
    clips = [replace(catalog[0], name=str(i)) for i in range(count)]
    slots = made.reserve([clip_row(clip, 9) for clip in clips])
    return [
        Task(clip, slot, recipe, str(path), str(slot.index), "run")
        for clip, slot in zip(clips, slots, strict=True)
    ]
