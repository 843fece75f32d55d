"""Magnification and temporal interpolation as steps of the one way, and in the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

import apexflow as af
from apexflow.catalog import Catalog
from apexflow.engine.clip import process_clip
from apexflow.engine.recipe import Recipe
from apexflow.errors import ApexflowError, ClipError
from apexflow.kernels import interpolate_frames
from apexflow.quality import parse_flags
from tests.conftest import small

# Clips of 9 frames at 200 frames/s have 11 Hz and more.
WIDE = {"low": 0.0, "high": 100.0}


def with_magnification(recipe: Recipe, method: str, alpha: float = 3.0, **more: object) -> Recipe:
    return small(recipe, magnification={"method": method, "alpha": alpha, **WIDE}, **more)


@pytest.mark.parametrize("method", ["flow", "eulerian"])
def test_flow_is_that_of_the_magnified_crops(
    catalog: Catalog, small_recipe: Recipe, method: str
) -> None:
    clip = catalog[0]
    plain = process_clip(clip, small_recipe)
    magnified = process_clip(clip, with_magnification(small_recipe, method))
    onset = magnified.aligned.numbers.index(magnified.plan.key_frames["onset"])
    assert (magnified.aligned.crops[onset] == plain.aligned.crops[onset]).all()
    before, after = (r.flow["onset-apex"] for r in (plain, magnified))
    moves = np.hypot(*before) > 0.5 * np.hypot(*before).max()
    times = (after * before)[:, moves].sum() / (before**2)[:, moves].sum()
    # On crops of 64 px with noise of 2 gray levels the bound takes much of it away.
    assert (2.8 if method == "flow" else 1.5) < times < 4.6
    assert magnified.magnification["motion"] > 0.08
    assert set(magnified.magnification) == {"motion", "folded" if method == "flow" else "levels"}


def test_flags_say_what_magnification_cannot_do(catalog: Catalog, small_recipe: Recipe) -> None:
    beyond = process_clip(catalog[0], with_magnification(small_recipe, "eulerian", alpha=200.0))
    assert "beyond-bound" in [flag.name for flag in beyond.flags]
    folded = process_clip(catalog[0], with_magnification(small_recipe, "flow", alpha=200.0))
    assert "folded" in [flag.name for flag in folded.flags]


def test_the_band_needs_the_rate_and_says_so(catalog: Catalog, small_recipe: Recipe) -> None:
    unknown = replace(catalog[0], dataset="mine")
    with pytest.raises(ClipError, match=r"frame rate is not known.*fps.*'flow'"):
        process_clip(unknown, with_magnification(small_recipe, "eulerian"))
    process_clip(unknown, with_magnification(small_recipe, "flow"))
    slow = small(small_recipe, magnification={"method": "flow", "high": 5.0})
    with pytest.raises(ClipError, match=r"9 frames at 200 frames/s have 11.1 to .* wider band"):
        process_clip(catalog[0], slow)


def test_interpolated_frames_are_stored_and_read(
    catalog: Catalog, small_recipe: Recipe, tmp_path: Path, reference: Path
) -> None:
    values = small_recipe.to_dict()["frames"] | {"interpolated": 5}
    path = tmp_path / "five.zarr"
    summary = af.process(
        catalog, path, recipe=small(small_recipe, frames=values), workers=0, progress=False
    )
    assert summary.done == 5
    group = zarr.open_group(path, mode="r")["interpolated"]
    assert group["image"].metadata.dimension_names == ("clip", "position", "y", "x")
    assert dict(group["frame_number"].attrs)["units"] == "frame number"
    assert "frame_number" in group.attrs["coordinates"]
    with af.open(path) as store:
        for index, record in store.finished():
            frames, made = (
                store.read(f"{name}/image", index, record) for name in ("frames", "interpolated")
            )
            assert (made == interpolate_frames(frames, 5)).all()
            numbers = store.read("interpolated/frame_number", index, record)
            first, last = record.frame_numbers[0], record.frame_numbers[-1]
            np.testing.assert_array_equal(numbers, np.linspace(first, last, 5))
            assert record.frame_rate == 200
    assert af.verify(path) == []
    dataset = af.ClipDataset(path, frames="interpolated", labels="none")
    sample, _ = dataset[0]
    assert sample.shape == (5, 1, 64, 64)
    with pytest.raises(ApexflowError, match=r"no interpolated frames; .* frames.interpolated = 0"):
        af.ClipDataset(reference, frames="interpolated", labels="none")
    # What is beside it has the same bytes as without.
    for name in ("frames/image", "flow/onset-apex", "maps/hsv"):
        ours, theirs = (zarr.open_group(p, mode="r")[name][:] for p in (path, reference))
        assert ours.tobytes() == theirs.tobytes()


def test_a_magnified_store_says_so(catalog: Catalog, small_recipe: Recipe, tmp_path: Path) -> None:
    recipe = with_magnification(small_recipe, "eulerian", alpha=200.0)
    path = tmp_path / "magnified.zarr"
    af.process(catalog, path, recipe=recipe, workers=0, progress=False)
    with af.open(path) as store:
        (_, record), *_ = store.finished()
        assert record.magnification["levels"][0][0] == 5
        assert all(alpha < 200 for _, alpha in record.magnification["levels"])
        assert "beyond-bound" in [flag.name for flag in parse_flags(record.flags)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": {"which": "windows", "keep": True, "interpolated": 5}}, "frames.interpolated"),
        ({"magnification": {"method": "flow", "low": 5.0, "high": 5.0}}, "low must be below high"),
        ({"magnification": {"method": "lagrangian"}}, "magnification.method"),
        ({"magnification": {"method": "flow", "alpha": -1.0}}, "magnification.alpha"),
    ],
)
def test_recipes_that_cannot_be_are_refused(
    small_recipe: Recipe, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ApexflowError, match=message):
        small(small_recipe, **changes)


def test_what_only_some_frames_are_read_for_cannot_be_magnified() -> None:
    values = Recipe.load("ststnet").to_dict() | {"magnification": {"method": "flow"}}
    with pytest.raises(ApexflowError, match="must be 'interval' or 'all', not 'windows'"):
        Recipe.from_dict(values)


def test_recipes_without_the_keys_keep_their_hash() -> None:
    values = Recipe.load("default").to_dict()
    full = Recipe.from_dict(values).hash
    del values["magnification"], values["frames"]["interpolated"]
    assert Recipe.from_dict(values).hash == full
    changed = values | {"magnification": {"method": "flow"}}
    assert Recipe.from_dict(changed).hash != full
