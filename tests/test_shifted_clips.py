"""Clips with their key frames moved: as if they had been annotated so, or refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

import apexflow as af
from apexflow.catalog import Catalog
from apexflow.datasets import read_samm
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
    values["windows"] = ["onset-apex", "onset-mid-apex-mid-offset", "steps-2", "onset-every-4"]
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


@pytest.fixture(scope="module")
def clips(samm_root: Path) -> Catalog:
    return Catalog([clip for clip in read_samm(samm_root) if not clip.problems][:1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, clips: Catalog, everything: Recipe) -> Path:
    """Their store; a test that changes it takes a copy."""
    return processed(clips, tmp_path_factory.mktemp("shifted") / "whole.zarr", everything)


def annotated(clips: Catalog) -> Catalog:
    return Catalog([replace(one, onset=one.onset + 1, apex=one.apex - 1) for one in clips])


def check(here: Path, there: Path, fed: dict[str, str]) -> None:
    dataset, wanted = (af.ClipDataset(path, **fed) for path in (here, there))
    assert len(dataset) == len(wanted) == 1
    made = ShiftedClips(dataset).read([0], [(0, 0), (1, -1)])
    assert (made.differs, made.clamped) == (0.0, (0, 0))
    for i, expected in enumerate((dataset, wanted)):
        for name, packed in expected.read([0]).items():
            found = made.values[name][i]
            assert found.dtype == packed.values.dtype
            assert found.numpy().tobytes() == packed.values.numpy().tobytes(), name
    first, second = made.values["maps"]
    assert (first != second).any()


def test_moved_clips_are_those_annotated_so(
    clips: Catalog, tmp_path: Path, small_recipe: Recipe
) -> None:
    recipe = replace(small_recipe, frames=replace(small_recipe.frames, which="all"))
    here = processed(clips, tmp_path / "here.zarr", recipe)
    check(here, processed(annotated(clips), tmp_path / "there.zarr", recipe), {"maps": "hsv"})


def test_moved_regions_means_and_masks_are_those_annotated_so(
    whole: Path, clips: Catalog, tmp_path: Path, everything: Recipe
) -> None:
    there = processed(annotated(clips), tmp_path / "there.zarr", everything)
    fed = {"maps": "roi", "roi": "onset-apex", "flow": "onset-apex", "encode": "uv"}
    check(whole, there, fed)
    check(whole, there, {"maps": "uv"})


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
    np.testing.assert_array_equal(made.values["maps"][0], dataset.read([0, 1])["maps"].values)


def changed(store: Path, folder: Path, attribute: str, **values: object) -> Path:
    """A copy of a store whose recipe, or layout, says otherwise."""
    path = Path(shutil.copytree(store, folder / "changed.zarr"))
    group = zarr.open_group(path, mode="r+")
    found = dict(group.attrs[attribute])  # type: ignore[arg-type]
    for name, value in values.items():
        found[name] = {**found[name], **value} if isinstance(value, dict) else value
    group.attrs[attribute] = found
    return path


@pytest.mark.parametrize(
    ("attribute", "values", "fed", "said"),
    [
        ("layout", {"keep_frames": False}, "flow", "keeps no frames.*frames.keep = true"),
        ("recipe", {"frames": {"which": "windows"}}, "flow", "which = 'windows'.*or 'all'"),
        ("recipe", {"regions": {"source": "frames"}}, "roi", "regions.source = 'frames'"),
    ],
)
def test_stores_that_lack_what_it_takes_are_refused(
    whole: Path, tmp_path: Path, attribute: str, values: dict[str, object], fed: str, said: str
) -> None:
    path = changed(whole, tmp_path, attribute, **values)
    with pytest.raises(ApexflowError, match=said):
        ShiftedClips(af.ClipDataset(path, **{fed: "onset-apex"}))
    if fed == "roi":  # the face needs none of them
        ShiftedClips(af.ClipDataset(path, flow="onset-apex"))


@pytest.mark.parametrize(
    ("window", "said"),
    [
        ("steps-2", "has neither onset nor apex"),
        ("onset-every-4", "is as long as its clip"),
    ],
)
def test_windows_that_cannot_move_are_refused(whole: Path, window: str, said: str) -> None:
    dataset = af.ClipDataset(whole, flow=window)
    with pytest.raises(ApexflowError, match=f"window {window} {said}"):
        ShiftedClips(dataset)


def test_frames_arrays_and_stores_of_no_recipe_are_refused(reference: Path, tmp_path: Path) -> None:
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
