"""What a power cut leaves is found, and what a clip counts by is on disk before it counts."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from apexflow import process
from apexflow.catalog import Catalog
from apexflow.engine.recipe import Recipe
from apexflow.storage import writer
from apexflow.storage.checks import torn_clips, verify
from apexflow.storage.compact import compact, expand
from apexflow.storage.store import open_store
from apexflow.storage.writer import open_writer
from tests.storage.stores import make_store, random_clips
from tests.stores import assert_same_arrays

AGAIN: dict[str, Any] = {"workers": 0, "progress": False}


@pytest.mark.parametrize(
    "chunk",
    [
        *["clips/record/c.1", "flow/onset-apex/c.1.0.0.0", "maps/hsv/c.1.0.0.0"],
        "frames/image/c.1.0.0",
    ],
)
@pytest.mark.parametrize("how", ["empty", "half", "lost", "longer"])
def test_a_torn_file_costs_its_clip_alone_without_repair(
    tmp_path: Path, reference: Path, catalog: Catalog, small_recipe: Recipe, chunk: str, how: str
) -> None:
    if how == "longer" and "record" in chunk:
        return  # what stands behind a record's text is not read
    path = shutil.copytree(reference, tmp_path / "s.zarr")
    content = (path / chunk).read_bytes()
    if how == "lost":
        (path / chunk).unlink()
    else:
        cut = {"empty": b"", "half": content[: len(content) // 2], "longer": content + b"\0"}
        (path / chunk).write_bytes(cut[how])
    summary = process(catalog, path, recipe=small_recipe, **AGAIN)
    assert summary.done == 1
    assert_same_arrays(reference, path)
    assert verify(path) == []


def test_a_torn_chunk_of_a_compacted_store(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    path = tmp_path / "s.zarr"
    process(catalog, path, recipe=small_recipe, **AGAIN)
    compact(path)
    for array in ("maps/hsv", "clips/record"):
        (chunk,) = [file for file in (path / array / "c").rglob("*") if file.is_file()]
        chunk.write_bytes(chunk.read_bytes()[:100])
        assert process(catalog, path, recipe=small_recipe, **AGAIN).done == 5
        assert verify(path) == []
        compact(path)


def test_blank_chunks_that_zarr_leaves_out_are_not_torn(tmp_path: Path) -> None:
    clips = random_clips(4)
    clips[1].maps["hsv"][:] = 0
    path = tmp_path / "s.zarr"
    make_store(path, clips)
    compact(path)
    expand(open_writer(path))
    assert not (path / "maps" / "hsv" / "c.1.0.0.0").exists()
    assert torn_clips(open_store(path)) == set()
    assert verify(path) == []


@pytest.mark.parametrize("together", [False, True])
def test_data_is_flushed_before_its_record_and_both_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """The order of the calls: a power cut cannot be had here."""
    path = tmp_path / "s.zarr"
    clips = random_clips(3, frames=True)
    make_store(path, clips[:1])
    flushed: list[tuple[str, int]] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        name = str(Path(f"/proc/self/fd/{handle}").readlink())
        flushed.append((str(Path(name).relative_to(path)), len(list(records.glob("c.?")))))
        real(handle)

    records = path / "clips" / "record"
    monkeypatch.setattr(os, "fsync", fsync)
    everything = writer.sync_all

    def sync_all(target: Any) -> None:
        flushed.append(("all", len(list(records.glob("c.?")))))
        everything(target)

    monkeypatch.setattr(writer, "sync_all", sync_all)
    store = open_writer(path)
    slots = store.reserve([_row(clip) for clip in clips[1:]])
    if together:
        with store.batch():
            for clip, slot in zip(clips[1:], slots, strict=True):
                _commit(store, clip, slot)
            assert len(list(records.glob("c.?"))) == 1
    else:
        _commit(store, clips[1], slots[0])
    one_by_one = [(name, there) for name, there in flushed if name != "all"]
    data = [name for name, _ in one_by_one if not name.startswith("clips/record")]
    arrays = {"maps/hsv", "flow/onset-apex", "roi/onset-apex", "frames/image", "clips/timings"}
    # The chunks and the folders that their names are in, while no record of these clips was there.
    assert arrays <= set(data)
    assert all(any(name.startswith(f"{array}/c.") for name in data) for array in arrays)
    assert all(there == 1 for name, there in one_by_one if name in data)
    # Then the records: one before its name is there, and its folder; several all at once.
    if together:
        assert flushed[-1] == ("all", 3)
    else:
        assert [name.endswith(".partial") for name, _ in flushed[-2:]] == [True, False]
        assert flushed[-1] == ("clips/record", 2)


def _row(clip: Any) -> Any:
    from tests.storage import stores

    return stores._row(clip)


def _commit(store: Any, clip: Any, slot: Any) -> None:
    from apexflow.storage.writer import ClipArrays
    from tests.storage import stores

    arrays = ClipArrays(clip.frames, clip.flow, clip.maps, clip.roi)
    store.commit(slot, stores._record(clip), arrays, {})
