from pathlib import Path

import pytest

from apexflow import process
from apexflow.catalog import Catalog
from apexflow.engine.recipe import Recipe
from apexflow.storage.checks import verify
from apexflow.storage.store import open_store
from tests.stores import assert_same_arrays


@pytest.mark.parametrize(
    "path",
    [
        *["clips/subject/c/0", "clips/frame_start/c/0", "clips/frame_capacity/c/0"],
        *["clips/emotion/c/0", "clips/status/c/0", "clips/box/c/0/0", "clips/timings/c.1.0"],
        *["frames/shift/c/0/0", "frames/frame_number/c/0"],
    ],
)
def test_a_damaged_column_is_made_anew(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe, path: str
) -> None:
    again = {"recipe": small_recipe, "workers": 0, "progress": False}
    process(catalog, tmp_path / "whole.zarr", **again)
    damaged = tmp_path / "damaged.zarr"
    process(catalog, damaged, **again)
    (damaged / path).write_bytes(b"nonsense")
    assert verify(open_store(damaged))
    summary = process(catalog, damaged, repair=True, **again)
    assert summary.done == 0
    assert verify(open_store(damaged)) == []
    assert_same_arrays(tmp_path / "whole.zarr", damaged)


def test_a_clip_whose_place_is_lost_gets_another(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    again = {"recipe": small_recipe, "workers": 0, "progress": False}
    process(catalog, tmp_path, **again)
    (tmp_path / "clips/frame_start/c/0").write_bytes(b"nonsense")
    (tmp_path / "clips/record/c.1").unlink()
    assert process(catalog, tmp_path, repair=True, **again).done == 1
    store = open_store(tmp_path)
    assert verify(store) == []
    assert [record.key for record in store.records() if record] == [clip.key for clip in catalog]
