"""Clips with their key frames moved: as if they had been annotated so, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import apexflow as af
from apexflow.catalog import Catalog
from apexflow.engine.recipe import Recipe
from apexflow.engine.run import process
from apexflow.errors import ApexflowError
from apexflow.shifted_clips import ShiftedClips, moved
from tests.storage.stores import make_store, random_clips

FRAMES = range(10, 20)
KEYS = {"onset": 12, "apex": 15, "offset": 18}


def processed(catalog: Catalog, path: Path, recipe: Recipe) -> Path:
    process(catalog, path, recipe=recipe, workers=0, progress=False)
    return path


@pytest.fixture(scope="module")
def everything(small_recipe: Recipe) -> Recipe:
    """Windows, regions, means and masks; all frames, so that the template is always the same."""
    values = small_recipe.to_dict()
    values["windows"] = ["onset-apex", "onset-mid-apex-mid-offset"]
    values["frames"] |= {"which": "all"}
    values["temporal"] |= {"method": "mean", "reach_ms": 20.0}
    values["flow"] |= {"method": "farneback", "dtype": "float16"}
    values["regions"] |= {"names": ["eyes", "mouth"], "height": 24, "width": 32}
    values["maps"] = {
        "uv": {"encoding": "uv", "window": "onset-apex", "size": [28, 28], "mask_eyes": True},
        "roi": {
            **{"encoding": "hsv", "window": "onset-mid-apex-mid-offset", "regions": True},
            "size": [16, 16],
        },
    }
    return Recipe.from_dict(values)


@pytest.mark.parametrize("kind", ["default", "everything"])
def test_moved_clips_are_those_annotated_so(
    catalog: Catalog, tmp_path: Path, small_recipe: Recipe, everything: Recipe, kind: str
) -> None:
    recipe = everything
    fed = {"maps": "roi", "roi": "onset-apex", "flow": "onset-apex", "encode": "uv"}
    if kind == "default":
        frames = replace(small_recipe.frames, which="all")
        recipe, fed = replace(small_recipe, frames=frames), {"maps": "hsv"}
    sound = Catalog([clip for clip in catalog if not clip.problems][:2])
    other = Catalog([replace(one, onset=one.onset + 1, apex=one.apex - 1) for one in sound])
    here = processed(sound, tmp_path / "here.zarr", recipe)
    there = processed(other, tmp_path / "there.zarr", recipe)
    dataset, wanted = (af.ClipDataset(path, **fed) for path in (here, there))
    assert len(dataset) == len(wanted) == 2
    made = ShiftedClips(dataset).read(range(2), [(0, 0), (1, -1)], threads=2)
    assert (made.differs, made.clamped) == (0.0, (0, 0))
    for expected, found in zip((dataset, wanted), made.values, strict=True):
        for name, packed in expected.read(range(2)).items():
            assert found[name].values.dtype == packed.values.dtype
            assert found[name].values.numpy().tobytes() == packed.values.numpy().tobytes(), name
    first, second = (one["maps"].values for one in made.values)
    assert (first != second).any()


@pytest.mark.parametrize(
    ("shift", "onset", "apex"),
    [
        ((0, 0), 12, 15),
        ((1, -1), 13, 14),
        ((-2, 3), 10, 18),  # to the first frame, and the offset
        ((-5, 9), 10, 18),  # and no farther
        ((4, 0), 14, 15),  # a frame is left between them
        ((0, -4), 12, 13),
        ((2, -2), 12, 13),
    ],
)
def test_key_frames_go_no_farther_than_their_clip(
    shift: tuple[int, int], onset: int, apex: int
) -> None:
    assert moved(FRAMES, KEYS, shift) == {"onset": onset, "apex": apex, "offset": 18}


def test_without_an_apex_the_onset_moves_alone() -> None:
    keys = {"onset": 12, "offset": 14}
    assert moved(FRAMES, keys, (5, 1)) == {"onset": 13, "offset": 14}


def test_what_is_clamped_is_counted(reference: Path) -> None:
    dataset = af.ClipDataset(reference, maps="hsv")
    # The store holds the interval alone: no onset is earlier.
    made = ShiftedClips(dataset).read([0, 1], [(-1, 0), (0, -1)])
    assert made.clamped == (2, 0)
    np.testing.assert_array_equal(made.values[0]["maps"].values, dataset.read([0, 1])["maps"].values)


def store(path: Path, recipe: Recipe, catalog: Catalog) -> Path:
    return processed(Catalog([catalog[0]]), path, recipe)


def test_stores_that_lack_what_it_takes_are_refused(
    catalog: Catalog, tmp_path: Path, small_recipe: Recipe
) -> None:
    cases = {
        "keeps no frames.*frames.keep = true": ({"keep": False}, "onset-apex"),
        "frames.which = 'windows'.*'interval' or 'all'": ({"which": "windows"}, "onset-apex"),
        "window steps-2 has neither onset nor apex": ({}, "steps-2"),
        "window onset-every-4 is as long as its clip": ({}, "onset-every-4"),
    }
    windows = ("onset-apex", "steps-2", "onset-every-4")
    recipe = replace(small_recipe, windows=windows, maps={})
    for said, (frames, window) in cases.items():
        path = tmp_path / f"{'-'.join(frames)}.zarr"
        if not path.exists():
            changed = replace(recipe, frames=replace(recipe.frames, **frames))
            store(path, changed, catalog)
        with pytest.raises(ApexflowError, match=said):
            ShiftedClips(af.ClipDataset(path, flow=window))


def test_regions_of_the_original_frames_are_refused(
    catalog: Catalog, tmp_path: Path, small_recipe: Recipe
) -> None:
    values = small_recipe.to_dict()
    values["regions"] |= {"names": ["eyes"], "source": "frames", "height": 24, "width": 32}
    path = store(tmp_path / "s.zarr", Recipe.from_dict(values), catalog)
    ShiftedClips(af.ClipDataset(path, maps="hsv"))
    with pytest.raises(ApexflowError, match=r"regions\.source = 'frames'"):
        ShiftedClips(af.ClipDataset(path, roi="onset-apex"))


def test_frames_arrays_and_stores_of_no_recipe_are_refused(
    reference: Path, tmp_path: Path
) -> None:
    with pytest.raises(ApexflowError, match="makes flow and maps again, not frames/image"):
        ShiftedClips(af.ClipDataset(reference, frames=("onset", "apex")))
    arrays = af.ClipDataset.from_arrays(np.zeros((2, 8, 8, 3)), [0, 1], subjects=["a", "b"])
    with pytest.raises(ApexflowError, match="which arrays have not"):
        ShiftedClips(arrays)
    make_store(tmp_path / "made.zarr", random_clips(3, frames=True))
    with pytest.raises(ApexflowError, match=r"made\.zarr: its recipe"):
        ShiftedClips(af.ClipDataset(tmp_path / "made.zarr", maps="hsv"))


def test_imported_maps_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "maps.csv"
    table.write_text("subject,clip,label\na,1,0\nb,2,1\n")
    for name in ("1", "2"):
        np.save(tmp_path / f"{name}.npy", np.full((16, 16, 3), int(name), np.uint8))
    af.import_maps(table, tmp_path, tmp_path / "maps.zarr", name="mine")
    with pytest.raises(ApexflowError, match="its maps/mine were imported"):
        ShiftedClips(af.ClipDataset(tmp_path / "maps.zarr", maps="mine"))
