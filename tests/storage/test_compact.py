import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray
import zarr
from zarr.storage import MemoryStore

from apexflow import process
from apexflow.datasets import read_samm
from apexflow.engine.recipe import Recipe
from apexflow.errors import ApexflowError
from apexflow.storage.checks import verify
from apexflow.storage.compact import compact, expand
from apexflow.storage.dataset import ClipDataset
from apexflow.storage.store import Store, open_store
from apexflow.storage.target import exclusive
from apexflow.storage.writer import open_writer
from tests.storage.stores import add_clips, make_store, random_clips

COUNT = 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_store(tmp_path / "s.zarr", random_clips(COUNT, frames=True))
    return tmp_path / "s.zarr"


def content(store: Store) -> dict[str, np.ndarray]:
    """Every array of a store as xarray sees it, which knows nothing of apexflow."""
    found = {}
    for group in ("clips", "frames", "flow", "roi", "maps"):
        with xarray.open_zarr(store.name, group=group, consolidated=False) as opened:
            found |= {f"{group}/{name}": value.values for name, value in opened.items()}
    return found


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name], err_msg=name)


def files(path: Path) -> int:
    return sum(file.is_file() for file in path.rglob("*"))


@pytest.mark.parametrize(
    "options", [{}, {"chunk_bytes": 20_000}, {"chunk_bytes": 9_000, "shard_bytes": 50_000}]
)
def test_changes_chunks_and_nothing_else(path: Path, options: dict[str, int]) -> None:
    before, count = content(open_store(path)), files(path)
    done = compact(path, **options)
    assert_same(before, content(open_store(path)))
    assert verify(open_store(path)) == []
    assert "maps/hsv" in done.arrays
    assert ("clips/record" in done.arrays) is (not options)
    assert not done.kept
    assert files(path) < count
    array = open_store(path).array("maps/hsv")
    assert array.chunks[0] > 1
    assert (array.shards is not None) is ("shard_bytes" in options)
    assert done.chunks_after < done.chunks_before


def test_again_does_nothing(path: Path) -> None:
    compact(path)
    count = files(path)
    done = compact(path)
    assert done.arrays == ()
    assert str(done) == "already compact"
    assert files(path) == count


def test_a_data_set_is_the_same(path: Path) -> None:
    options: list[dict[str, Any]] = [{"maps": "hsv"}, {"frames": "all"}, {"roi": "onset-apex"}]
    plain = [ClipDataset(path, **one).batch(range(COUNT)) for one in options]
    compact(path, chunk_bytes=20_000)
    for one, (wanted, labels) in zip(options, plain, strict=True):
        for memory in (1 << 30, 1):
            found, again = ClipDataset(path, memory=memory, **one).batch(range(COUNT))
            np.testing.assert_array_equal(
                found[0] if "frames" in one else found, wanted[0] if "frames" in one else wanted
            )
            np.testing.assert_array_equal(labels, again)


def test_a_reader_is_unharmed_and_old_chunks_go_when_it_does(path: Path) -> None:
    dataset = ClipDataset(path, maps="hsv", memory=1)
    wanted = dataset.batch(range(COUNT))[0]
    done = compact(path)
    assert done.kept
    np.testing.assert_array_equal(dataset.batch(range(COUNT))[0], wanted)
    assert any(path.glob("maps/hsv/c.*"))
    dataset.close()
    again = compact(path)
    assert (again.arrays, again.kept) == ((), False)
    assert not any(path.glob("maps/hsv/c.*"))
    np.testing.assert_array_equal(dataset.batch(range(COUNT))[0], wanted)


def test_readers_see_the_same_while_it_happens(path: Path) -> None:
    dataset = ClipDataset(path, maps="hsv", memory=1)
    wanted = dataset.batch(range(COUNT))[0]
    ended = threading.Event()
    failures: list[Exception] = []

    def read() -> None:
        try:
            while not ended.is_set():
                np.testing.assert_array_equal(dataset.batch(range(COUNT))[0], wanted)
                fresh = ClipDataset(path, maps="hsv")
                np.testing.assert_array_equal(fresh.batch(range(COUNT))[0], wanted)
        except Exception as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        compact(path)
        # The data set reads on from the old chunks, which are where the new ones would go.
        with pytest.raises(ApexflowError, match="a reader holds old chunks of"):
            expand(open_writer(path))
    finally:
        ended.set()
        reader.join()
    assert failures == []
    dataset.close()
    assert expand(open_writer(path))
    np.testing.assert_array_equal(dataset.batch(range(COUNT))[0], wanted)


def test_a_run_goes_on_with_a_compacted_store(path: Path) -> None:
    before = content(open_store(path))
    compact(path)
    store = open_writer(path)
    add_clips(store, random_clips(COUNT + 5, frames=True))
    after = open_store(path)
    assert after.clip_count == COUNT + 5
    assert after.array("maps/hsv").chunks[0] == after.array("clips/record").chunks[0] == 1
    assert after.array("frames/image").chunks[0] == 32
    assert verify(after) == []
    np.testing.assert_array_equal(after.array("maps/hsv")[:COUNT], before["maps/hsv"])
    compact(path)
    assert verify(open_store(path)) == []


def test_process_goes_on_with_a_compacted_store(
    tmp_path: Path, samm_root: Path, small_recipe: Recipe
) -> None:
    catalog = read_samm(samm_root)
    options: dict[str, Any] = {"recipe": small_recipe, "workers": 0, "progress": False}
    for name in ("plain", "compacted"):
        process(catalog[:2], tmp_path / name, **options)
    compact(tmp_path / "compacted")
    assert process(catalog[:2], tmp_path / "compacted", **options).done == 0
    assert open_store(tmp_path / "compacted").array("maps/hsv").chunks[0] == 2
    for name in ("plain", "compacted"):
        process(catalog, tmp_path / name, **options)
    assert verify(open_store(tmp_path / "compacted")) == []
    plain, compacted = (open_store(tmp_path / name) for name in ("plain", "compacted"))
    np.testing.assert_array_equal(plain.array("maps/hsv")[:], compacted.array("maps/hsv")[:])


def test_what_an_earlier_form_left_does_not_shine_through(path: Path) -> None:
    """A chunk that is all fill value is never written: an old file in its place would be read."""
    reader = ClipDataset(path, maps="hsv", memory=1)
    compact(path)
    assert any(path.glob("maps/hsv/c.*"))
    reader.close()
    store = open_writer(path)
    store.array("maps/hsv")[:] = 0
    expand(store)
    assert not open_store(path).array("maps/hsv")[:].any()


@pytest.mark.parametrize("seen", [1, 8])
def test_a_killed_compaction_leaves_the_store_as_it_was(path: Path, seen: int) -> None:
    before = content(open_store(path))
    code = f"from apexflow.storage.compact import compact; compact({str(path)!r}, chunk_bytes=5000)"
    columns = sum(1 for _ in path.rglob("c/*"))
    child = subprocess.Popen([sys.executable, "-c", code])
    while child.poll() is None and sum(1 for _ in path.rglob("c/*")) < columns + seen:
        pass
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert_same(before, content(open_store(path)))
    assert verify(open_store(path)) == []
    compact(path)
    assert_same(before, content(open_store(path)))
    assert not list(path.rglob("*.partial"))


def test_one_at_a_time(path: Path) -> None:
    with exclusive(path), pytest.raises(ApexflowError, match="another run is writing"):
        compact(path)


def test_an_unfinished_store_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", random_clips(3), finalize=False)
    with pytest.raises(ApexflowError, match="unfinished; the same process command goes on"):
        compact(tmp_path / "s.zarr")
    with pytest.raises(ApexflowError, match="no store at"):
        compact(tmp_path / "none.zarr")
    with pytest.raises(ApexflowError, match="chunk_bytes must be 1 or more"):
        compact(tmp_path / "s.zarr", chunk_bytes=0)


def test_any_zarr_store() -> None:
    memory = MemoryStore()
    store = make_store(memory, random_clips(6))
    wanted = store.array("maps/hsv")[:]
    done = compact(memory)
    assert not done.kept
    group = zarr.open_group(memory, mode="r")
    np.testing.assert_array_equal(group["maps/hsv"][:], wanted)
    assert group["maps/hsv"].chunks[0] == 6
