"""The store is reconciled with the catalog at every run: who is gone takes no part."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import apexflow as af
from apexflow import process
from apexflow.catalog import Catalog
from apexflow.cli.store import _info_lines
from apexflow.engine.recipe import Recipe
from apexflow.engine.run import SharedFramesError
from apexflow.engine.run.todo import forecast
from apexflow.errors import ApexflowError
from apexflow.storage.checks import verify
from apexflow.storage.compact import compact
from apexflow.storage.dataset import ClipDataset
from apexflow.storage.store import open_store

QUIET: dict[str, Any] = {"workers": 0, "progress": False}


@pytest.fixture
def sound(catalog: Catalog) -> Catalog:
    return catalog.select(lambda clip: clip.name not in ("028_4_1", "032_3_1"))


@pytest.fixture
def path(tmp_path: Path, sound: Catalog, small_recipe: Recipe) -> Path:
    process(sound, tmp_path / "s.zarr", recipe=small_recipe, **QUIET)
    return tmp_path / "s.zarr"


def corrected(catalog: Catalog, row: int = 0, **changes: Any) -> Catalog:
    clips = list(catalog)
    clips[row] = replace(clips[row], **changes)
    return Catalog(clips)


def test_a_corrected_subject_leaves_nobody_on_both_sides(
    path: Path, sound: Catalog, small_recipe: Recipe
) -> None:
    old, catalog = str(sound[0]), corrected(sound, subject="6")
    summary = process(catalog, path, recipe=small_recipe, **QUIET)
    assert summary.done == 1
    assert summary.gone == (f"{old} (now {catalog[0]})",)
    assert "gone     1 clips" in str(summary)
    assert f"  {old} (now {catalog[0]})" in str(summary)
    dataset = ClipDataset(path, maps="hsv")
    assert sorted((s.dataset, s.subject, s.clip) for s in dataset.samples) == sorted(
        clip.key for clip in catalog
    )
    for train, test in af.loso(dataset):
        sides = ({dataset.samples[i].frames for i in side.indices} for side in (train, test))
        assert not set.intersection(*sides)
    shown = subprocess.run(
        [sys.executable, "-m", "apexflow", "info", str(path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"gone      {old}: no longer in the catalog, takes no part" in shown
    # Back as it was: the row is there still, and the new one is gone.
    again = process(sound, path, recipe=small_recipe, **QUIET)
    assert (again.done, again.gone) == (0, (f"{catalog[0]} (now {old})",))


def test_pruned_the_store_is_that_of_the_catalog(
    path: Path, tmp_path: Path, sound: Catalog, small_recipe: Recipe
) -> None:
    catalog = corrected(sound, len(sound) - 1, name="renamed")
    process(catalog, path, recipe=small_recipe, **QUIET)
    compact(path)
    summary = process(catalog, path, recipe=small_recipe, prune=True, **QUIET)
    assert len(summary.dropped) == 1
    assert (summary.done, summary.gone, summary.skipped) == (0, (), len(sound))
    store = open_store(path)
    assert sorted(store.keys()) == sorted(clip.key for clip in catalog)
    assert verify(store) == []
    # Nothing of the clip is left, not even for those who read with Zarr alone.
    assert f",{sound[-1].name},done" not in (path / "clips.csv" / "c" / "0").read_text()
    group = zarr.open_group(path, mode="r")
    assert all(
        array.shape[0] == len(sound)
        for name, array in group.members(max_depth=None)
        if isinstance(array, zarr.Array) and name.partition("/")[0] in ("clips", "flow", "maps")
    )
    process(catalog, tmp_path / "fresh.zarr", recipe=small_recipe, **QUIET)
    fresh = open_store(tmp_path / "fresh.zarr")
    place = {key: i for i, key in enumerate(fresh.keys())}
    for record in store.records():
        assert record is not None
        other = fresh.record(place[record.key])
        assert other is not None
        assert record.digests == other.digests
        np.testing.assert_array_equal(store.frames(record), fresh.frames(other))
    # It goes on as any store does.
    assert process(catalog, path, recipe=small_recipe, **QUIET).skipped == len(sound)


@pytest.mark.parametrize("rows", [(0,), (1, 3), (4,), (0, 1, 2, 3)])
def test_any_rows_can_be_pruned(
    path: Path, sound: Catalog, small_recipe: Recipe, rows: tuple[int, ...]
) -> None:
    left = Catalog(clip for i, clip in enumerate(sound) if i not in rows)
    summary = process(left, path, recipe=small_recipe, prune=True, **QUIET)
    assert set(summary.dropped) == {str(sound[i]) for i in rows}
    assert verify(open_store(path)) == []
    assert sorted(open_store(path).keys()) == sorted(clip.key for clip in left)
    assert process(sound, path, recipe=small_recipe, **QUIET).done == len(rows)
    assert verify(open_store(path)) == []


def test_kept_on_purpose(path: Path, sound: Catalog, small_recipe: Recipe) -> None:
    summary = process(sound[:-1], path, recipe=small_recipe, keep=True, **QUIET)
    assert (summary.gone, summary.kept) == ((), (str(sound[-1]),))
    assert len(ClipDataset(path, maps="hsv")) == len(sound)
    # It stays so without being said again.
    assert process(sound[:-1], path, recipe=small_recipe, **QUIET).kept == (str(sound[-1]),)
    with pytest.raises(ApexflowError, match="prune and keep exclude each other"):
        process(sound, path, recipe=small_recipe, prune=True, keep=True, **QUIET)


def test_other_data_sets_are_left_alone(path: Path, sound: Catalog, small_recipe: Recipe) -> None:
    other = Catalog(replace(clip, dataset="other", person=str(clip.person)) for clip in sound[:2])
    summary = process(other, path, recipe=small_recipe, prune=True, **QUIET)
    assert (summary.gone, summary.dropped) == ((), ())
    assert len(ClipDataset(path, maps="hsv")) == len(sound) + 2


def test_the_same_frames_under_two_people(
    path: Path, tmp_path: Path, sound: Catalog, small_recipe: Recipe
) -> None:
    # In a folder of their own, as a copied data set has them.
    root = shutil.copytree(sound[0].root, tmp_path / "copied")
    moved = Catalog([*sound, replace(sound[0], subject="6", root=root)])
    with pytest.raises(SharedFramesError, match="have the same frames") as raised:
        process(moved, tmp_path / "new.zarr", recipe=small_recipe, **QUIET)
    assert raised.value.summary.done == len(moved)
    # One person, said so in a column of its own, may have them twice.
    ada = [replace(sound[0], subject=subject, person="Ada") for subject in ("006", "6")]
    one = Catalog([*sound[1:], *ada])
    process(one, tmp_path / "one.zarr", recipe=small_recipe, **QUIET)
    assert verify(open_store(tmp_path / "one.zarr")) == []
    # A store that holds both because the old row was kept.
    with pytest.raises(SharedFramesError, match="have the same frames"):
        process(corrected(sound, subject="6"), path, recipe=small_recipe, keep=True, **QUIET)
    (damage,) = verify(open_store(path))
    assert "has the frames of" in str(damage)
    with pytest.raises(ApexflowError, match="have the same frames, under two people"):
        list(af.loso(ClipDataset(path, maps="hsv")))


def test_frames_of_another_run_under_another_person(
    path: Path, tmp_path: Path, sound: Catalog, small_recipe: Recipe
) -> None:
    root = shutil.copytree(sound[0].root, tmp_path / "copied")
    copied = Catalog([replace(sound[0], dataset="mine", subject="6", root=root, person="")])
    with pytest.raises(SharedFramesError, match="have the same frames") as raised:
        process(copied, path, recipe=small_recipe, **QUIET)
    assert raised.value.summary.done == 1
    (told,) = raised.value.summary.shared
    assert str(sound[0]) in told
    assert str(copied[0]) in told
    # Whichever of the two the next run is about, it says so; and no more once it is settled.
    with pytest.raises(SharedFramesError):
        process(sound, path, recipe=small_recipe, **QUIET)
    settled = Catalog([replace(copied[0], person=str(sound[0].person))])
    assert process(settled, path, recipe=small_recipe, **QUIET).shared == ()
    assert verify(path) == []


def test_shared_frames_cost_the_folds_and_nothing_else(
    path: Path, sound: Catalog, small_recipe: Recipe, caplog: pytest.LogCaptureFixture
) -> None:
    # Frames in common are enough; nothing of the files is equal as a whole.
    clip = sound[0]
    assert clip.offset is not None
    part = replace(clip, subject="6", offset=clip.offset - 1)
    both = Catalog([*sound, part])
    assert f"shared   {clip} and {part} have the same frames" in str(
        forecast(both, path, recipe=small_recipe)
    )
    with pytest.raises(SharedFramesError) as raised:
        process(both, path, recipe=small_recipe, **QUIET)
    message = str(raised.value)
    assert message.startswith(f"{clip} and {part} have the same frames ({clip.source}), under two")
    assert f"({clip.person}, {part.person}): correct the table" in message
    assert (raised.value.summary.done, len(raised.value.summary.shared)) == (1, 1)
    assert "all clips are processed" in caplog.text
    (damage,) = verify(path)
    assert damage.where == f"clip {part}"
    with open_store(path) as store:
        assert f"shared    {part}: the frames of {clip}" in "\n".join(_info_lines(store))
    dataset = ClipDataset(path, maps="hsv")
    assert len(dataset) == len(both)
    with pytest.raises(ApexflowError, match="have the same frames, under two people"):
        list(af.loso(dataset))
    # Settled by the table, the store is sound at once.
    settled = Catalog([*sound, replace(part, person=str(clip.person))])
    assert process(settled, path, recipe=small_recipe, **QUIET).shared == ()
    assert verify(path) == []
    assert len(list(af.loso(ClipDataset(path, maps="hsv")))) == len({c.person for c in sound})


KILL_IN_DROP = """
import os, signal, sys
from apexflow import process, read_samm
from apexflow.storage import writer
root, target, recipe, step, count = sys.argv[1:]
real, calls = getattr(writer.StoreWriter, step), 0

def die(*args, **options):
    global calls
    calls += 1
    if calls == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **options)

setattr(writer.StoreWriter, step, die)
faulty = ("028_4_1", "032_3_1")
catalog = read_samm(root).select(lambda c: c.name not in faulty and c.subject != "006")
process(catalog, target, recipe=recipe, workers=0, progress=False, prune=True)
"""


@pytest.mark.parametrize(
    ("step", "count"),
    [
        *[("forget_row", 1), ("_wipe_frames", 2), ("_copy_row", 1), ("_copy_row", 2)],
        *[("_write_table", 1), ("_write_column", 2), ("_write_column", 9), ("_cut", 1)],
    ],
)
def test_a_kill_while_rows_are_taken_out(
    path: Path,
    sound: Catalog,
    samm_root: Path,
    recipe_file: Callable[[], Path],
    small_recipe: Recipe,
    step: str,
    count: int,
) -> None:
    arguments = [str(samm_root), str(path), str(recipe_file()), step, str(count)]
    killed = subprocess.run([sys.executable, "-c", KILL_IN_DROP, *arguments], check=False)
    assert killed.returncode == -9
    left = sound.select(lambda clip: clip.subject != "006")
    process(left, path, recipe=small_recipe, prune=True, **QUIET)
    assert sorted(open_store(path).keys()) == sorted(clip.key for clip in left)
    assert verify(open_store(path)) == []


def test_runs_and_versions_are_kept(
    tmp_path: Path, sound: Catalog, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s.zarr"
    process(sound[:2], path, recipe=small_recipe, **QUIET)
    group = zarr.open_group(path, mode="r+")
    (run,) = group.attrs["runs"]
    assert run["clips"] == 2
    assert run["recipe_hash"] == small_recipe.hash
    assert run["versions"]["numpy"] == np.__version__
    # As if the store had been made with an older NumPy.
    group.attrs["versions"] = {**group.attrs["versions"], "numpy": "1.0"}
    summary = process(sound, path, recipe=small_recipe, **QUIET)
    assert summary.other_versions == {"numpy": ("1.0", np.__version__)}
    assert f"numpy 1.0 -> {np.__version__}" in str(summary)
    versions = [record.versions for record in open_store(path).records() if record]
    assert versions == [{}] * 2 + [{"numpy": np.__version__}] * (len(sound) - 2)
    assert len(open_store(path).attributes["runs"]) == 2


def test_people_are_a_column(path: Path, sound: Catalog, small_recipe: Recipe) -> None:
    assert open_store(path).people() == [f"samm/{clip.subject}" for clip in sound]
    process(corrected(sound, person="Ada"), path, recipe=small_recipe, **QUIET)
    assert zarr.open_group(path, mode="r")["clips/person"][0] == "Ada"
    dataset = ClipDataset(path, maps="hsv")
    assert dataset.samples[0].person == "Ada"
    assert "Ada" in (path / "clips.csv" / "c" / "0").read_text()


def test_an_unchanged_store_stays_as_it_is(
    path: Path, sound: Catalog, small_recipe: Recipe
) -> None:
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}
    assert process(sound, path, recipe=small_recipe, **QUIET).skipped == len(sound)
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()} == before


def test_a_table_may_name_the_person(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text(
        "subject,clip,path,onset,apex,offset,label,person\n1,a,a,1,2,3,0,Ada\n2,b,b,1,2,3,0,\n"
    )
    assert [clip.person for clip in af.read_table(None, tmp_path / "clips.csv")] == [
        *("Ada", "table/2")
    ]
