import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from apexflow import process, protocols
from apexflow.catalog import Catalog
from apexflow.datasets import read_samm
from apexflow.engine.recipe import Map, Recipe
from apexflow.engine.run.task import layout
from apexflow.errors import ApexflowError
from apexflow.storage.checks import verify
from apexflow.storage.create import create_store
from apexflow.storage.format import COORDINATES, DONE, FRAME_CHUNK, ClipRecord, ClipRow
from apexflow.storage.store import open_store
from apexflow.storage.writer import ClipArrays, StoreWriter


@pytest.fixture
def store(tmp_path: Path, samm_root: Path, small_recipe: Recipe) -> StoreWriter:
    path = tmp_path / "samm.zarr"
    process(read_samm(samm_root), path, recipe=small_recipe, workers=0, progress=False)
    return open_store(path)


def folder(store: StoreWriter) -> Path:
    return Path(store.name)


def test_opens_with_zarr_alone(store: StoreWriter) -> None:
    group = zarr.open(store.name, mode="r")
    assert group.attrs["format"] == 1
    assert group["clips/status"][:].tolist().count("done") == 5
    assert group["frames/image"].dtype == np.uint8
    start, count = (int(group[f"clips/{name}"][0]) for name in ("frame_start", "frame_count"))
    assert count == 9
    numbers = group["frames/frame_number"][start : start + count]
    np.testing.assert_array_equal(np.diff(numbers), 1)


def test_opens_with_xarray_and_has_named_axes(store: StoreWriter) -> None:
    clips = xarray.open_zarr(store.name, group="clips", consolidated=False)
    assert clips["box"].dims == ("clip", "corner")
    assert clips["subject"].dims == ("clip",)
    flow = xarray.open_zarr(store.name, group="flow", consolidated=False)
    assert flow["onset-apex"].dims == ("clip", "component", "y", "x")
    frames = xarray.open_zarr(store.name, group="frames", consolidated=False)
    assert frames["image"].dims == ("frame", "y", "x")
    maps = xarray.open_zarr(store.name, group="maps", consolidated=False)
    assert maps["hsv"].sizes["clip"] == 7


def test_opens_as_one_tree_with_xarray(store: StoreWriter) -> None:
    with xarray.open_datatree(store.name, engine="zarr", consolidated=False) as tree:
        assert set(tree.children) == {"clips", "frames", "flow", "maps"}
        assert tree["flow/onset-apex"].dims == ("clip", "component", "y", "x")
        assert tree["flow"].attrs["units"] == "pixels of the crop"
        assert tree["clips/person"].values[0].startswith("samm/")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "windows", [("onset-apex",), ("consecutive",), ("onset-apex", "consecutive")]
)
def test_every_group_says_what_its_rows_are_of(
    tmp_path: Path, samm_root: Path, small_recipe: Recipe, windows: tuple[str, ...]
) -> None:
    path, catalog = tmp_path / "s.zarr", protocols.samm5(read_samm(samm_root))
    maps = {"hsv": Map(encoding="hsv", window=windows[0], size=(28, 28))}
    recipe = replace(small_recipe, windows=windows, maps=maps)
    process(catalog, path, recipe=recipe, workers=0, progress=False)
    with xarray.open_datatree(path, engine="zarr", consolidated=False) as tree:
        for name in ("clips", "frames", "flow", "maps"):
            group = tree[name].to_dataset()
            for array in group.data_vars.values():
                axis = array.dims[0]
                both = {"clip", "frame"} <= group.sizes.keys()
                before = "frame_" if both and axis == "frame" else ""
                assert {f"{before}{c}" for c in COORDINATES} <= array.coords.keys(), array.name
                labels, names = array[f"{before}label"].values, array[f"{before}clip"].values
                assert {
                    (clip, label) for clip, label in zip(names, labels, strict=True) if clip
                } <= {(clip.name, -1 if clip.label is None else clip.label) for clip in catalog}
        assert tree["frames/label"].attrs["units"] == "class number"
        for name in ("image", "shift", "rotation", "scale", "score"):
            assert tree[f"frames/{name}"].attrs["units"]
        assert all(a.attrs["units"] for g in ("flow", "maps") for a in tree[g].data_vars.values())
        # One clip's frames, by its name alone.
        clip = catalog[0]
        frames = tree["frames"].to_dataset()
        chosen = frames.isel(frame=np.flatnonzero(frames["clip"].values == clip.name))
        assert (chosen.status == "done").all()
        assert clip.onset in chosen.frame_number
        blank = frames.isel(frame=np.flatnonzero(frames["clip"].values == ""))
        assert (blank.frame_number == -1).all()
    assert verify(path) == []


def test_coordinates_cannot_disagree_with_the_table(store: StoreWriter, samm_root: Path) -> None:
    path = folder(store)
    group = zarr.open_group(path, mode="r+")
    group["flow/label"][2] = 7
    group["frames/clip"][0] = "another"
    assert {damage.where for damage in verify(path)} == {
        *("flow/label", f"frames/clip of clip {'/'.join(store.keys()[0])}")
    }
    recipe = Recipe.from_dict(store.attributes["recipe"])
    process(read_samm(samm_root), path, recipe=recipe, workers=0, progress=False, repair=True)
    assert verify(path) == []
    # A label corrected in the table is corrected in every group.
    relabelled = Catalog(replace(clip, label=4) for clip in read_samm(samm_root))
    process(relabelled, path, recipe=recipe, workers=0, progress=False)
    for name in ("clips", "flow", "maps"):
        opened = xarray.open_zarr(path, group=name, consolidated=False)
        assert (opened.label == 4).all()
    assert verify(path) == []


def test_walking_the_whole_hierarchy_warns_of_nothing(store: StoreWriter) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = [name for name, _ in zarr.open_group(store.name, mode="r").members(max_depth=None)]
    assert "clips/record" in names


def test_the_table_is_also_a_plain_csv_file(store: StoreWriter) -> None:
    lines = (folder(store) / "clips.csv" / "c" / "0").read_text().splitlines()
    assert lines[0].startswith("dataset,subject,clip,status")
    assert len(lines) == 1 + store.clip_count


def test_values_are_what_was_processed(store: StoreWriter) -> None:
    done = [record for record in store.records() if record is not None and record.done]
    for record in done:
        assert record.score[record.frame_numbers.index(record.template_frame)] == 1
        assert len(record.files) == len(record.frame_numbers) == 9
        assert record.files[0].endswith(f"{record.frame_numbers[0]}.jpg")
    attributes = store.attributes
    assert Recipe.from_dict(attributes["recipe"]).hash == attributes["recipe_hash"]
    assert attributes["versions"]["apexflow"]


def test_a_sound_store_has_no_damage(store: StoreWriter) -> None:
    assert verify(store) == []


@pytest.mark.parametrize("path", ["frames/image", "flow/onset-apex", "maps/hsv"])
@pytest.mark.parametrize("how", ["changed", "truncated", "lost", "emptied"])
def test_damaged_chunks_are_named_with_their_clip(store: StoreWriter, path: str, how: str) -> None:
    chunk = sorted((folder(store) / path).glob("c.*"))[0]
    data = chunk.read_bytes()
    middle = len(data) // 2
    if how == "changed":
        chunk.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif how == "truncated":
        chunk.write_bytes(data[:middle])
    elif how == "lost":
        chunk.unlink()
    else:
        chunk.write_bytes(b"")
    (damage,) = verify(open_store(store.name))
    first = next(r for r in store.records() if r is not None and r.done)
    assert damage.where == f"{path} of clip {'/'.join(first.key)}"


def test_a_damaged_column_is_named(store: StoreWriter) -> None:
    (folder(store) / "clips" / "subject" / "c" / "0").write_bytes(b"nonsense")
    assert [damage.where for damage in verify(open_store(store.name))] == ["clips/subject"]


def test_damaged_metadata_is_named(store: StoreWriter) -> None:
    (folder(store) / "maps" / "hsv" / "zarr.json").write_text("{")
    assert {damage.where.split(" ")[0] for damage in verify(open_store(store.name))} == {"maps/hsv"}


def test_other_formats_are_refused(store: StoreWriter) -> None:
    path = folder(store) / "zarr.json"
    metadata = json.loads(path.read_text())
    metadata["attributes"]["format"] = 2
    path.write_text(json.dumps(metadata))
    with pytest.raises(ApexflowError, match="store format 2; this apexflow reads 1"):
        open_store(store.name)


def test_a_missing_store_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ApexflowError, match="no store at"):
        open_store(tmp_path / "nowhere.zarr")
    assert not (tmp_path / "nowhere.zarr").exists()


def memory_store(recipe: Recipe) -> StoreWriter:
    return create_store(
        zarr.storage.MemoryStore(),
        layout=layout(recipe),
        recipe=recipe.to_dict(),
        recipe_hash=recipe.hash,
        provenance={"datasets": ["table"], "versions": {}},
    )


def row(name: str, capacity: int) -> ClipRow:
    return ClipRow(dataset="table", subject="1", clip=name, frame_capacity=capacity)


@settings(max_examples=12)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 100)), max_size=4), max_size=3)
)
def test_no_two_clips_ever_share_a_chunk_of_frames(plans: list[list[tuple[int, int]]]) -> None:
    """Whatever grows, shrinks or is added from run to run."""
    store = memory_store(Recipe.load("default"))
    owner: dict[int, str] = {}
    for plan in plans:
        rows = [row(str(name), capacity) for name, capacity in dict(plan).items()]
        for wanted, slot in zip(rows, store.reserve(rows), strict=True):
            assert slot.frame_start % FRAME_CHUNK == 0
            assert slot.frame_capacity >= wanted.frame_capacity
            first = slot.frame_start // FRAME_CHUNK
            for chunk in range(first, first + slot.frame_capacity // FRAME_CHUNK):
                assert owner.setdefault(chunk, wanted.clip) == wanted.clip
        assert sorted(store.keys()) == sorted(set(store.keys()))


names = st.text(st.characters(codec="utf-8"), max_size=20)
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(names, names, st.lists(st.tuples(numbers, numbers), max_size=3), st.none() | numbers)
def test_records_survive_json(
    clip: str, message: str, shift: list[tuple[float, float]], confidence: float | None
) -> None:
    record = ClipRecord(
        dataset="d",
        subject="s",
        clip=clip,
        status=DONE,
        message=message,
        shift=tuple(shift),
        confidence=confidence,
        frame_numbers=(1, 2),
        digests={"maps/hsv": 7},
    )
    assert ClipRecord.from_json(record.to_json()) == record


def test_committed_arrays_read_back(small_recipe: Recipe) -> None:
    store = memory_store(small_recipe)
    slots = store.reserve([row("a", 40), row("b", 3)])
    rng = np.random.default_rng(0)
    written: list[dict[str, Any]] = []
    for slot, count, name in zip(slots, (40, 3), "ab", strict=True):
        frames = rng.integers(0, 256, (count, 64, 64), dtype=np.uint8)
        flow = rng.normal(size=(2, 64, 64)).astype(np.float32)
        image = rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)
        record = ClipRecord(
            dataset="table",
            subject="1",
            clip=name,
            status=DONE,
            frame_numbers=tuple(range(count)),
            shift=((0.0, 0.0),) * count,
            score=(1.0,) * count,
        )
        store.commit(slot, record, ClipArrays(frames, {"onset-apex": flow}, {"hsv": image}), {})
        written.append({"frames": frames, "flow": flow, "map": image})
    store.finalize()
    for slot, arrays in zip(slots, written, strict=True):
        record = store.record(slot.index)
        assert record is not None
        np.testing.assert_array_equal(store.frames(record), arrays["frames"])
        np.testing.assert_array_equal(store.array("flow/onset-apex")[slot.index], arrays["flow"])
        np.testing.assert_array_equal(store.array("maps/hsv")[slot.index], arrays["map"])
    assert verify(store) == []
