"""Whoever reads holds the store and checks what is read: never zeros for a chunk that is gone."""

import pickle
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import apexflow as af
from apexflow.errors import DamagedError
from apexflow.report import write_report
from apexflow.storage import holds
from apexflow.storage.checks import verify
from apexflow.storage.compact import compact, expand
from apexflow.storage.coordinates import ATTRIBUTE, coordinates_of
from apexflow.storage.dataset import ClipDataset
from apexflow.storage.export import export_gifs, export_maps, export_normalized
from apexflow.storage.format import ADDED_COLUMNS
from apexflow.storage.store import Store, open_store
from apexflow.storage.writer import open_writer
from tests.storage.stores import add_clips, make_store, random_clips

COUNT = 6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_store(tmp_path / "s.zarr", random_clips(COUNT, frames=True))
    return tmp_path / "s.zarr"


def everything(store: Store) -> list[Any]:
    """All that a loop over a store sees."""
    seen: list[Any] = [store.keys(), store.column("emotion").tolist()]
    for index, record in enumerate(store.records()):
        assert record is not None
        seen += [store.read(each, index, record) for each in record.digests]
    return seen


def assert_equal(found: list[Any], wanted: list[Any]) -> None:
    assert len(found) == len(wanted)
    for one, two in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, two)


def test_an_open_store_outlives_compaction_and_what_follows(path: Path) -> None:
    with af.open(path) as store:
        wanted = everything(store)
        assert compact(path).kept
        assert_equal(everything(store), wanted)
        with pytest.raises(af.ApexflowError, match="a reader holds old chunks"):
            expand(open_writer(path))
        assert_equal(everything(store), wanted)
    assert not compact(path).kept
    with af.open(path) as store:
        add_clips(open_writer(path), random_clips(COUNT + 2, frames=True)[COUNT:])
        after = everything(store)
        assert store.clip_count == COUNT + 2
    assert_equal(after[2 : len(wanted)], wanted[2:])


@pytest.mark.parametrize("gone", [True, False])
def test_without_locks_a_reader_switches_to_the_new_chunks(
    path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    """As on Windows, and on network file systems: nobody knows who reads."""
    if gone:
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        monkeypatch.setattr(holds, "lock_folder", unlocked)
    store = open_store(path)
    dataset = ClipDataset(path, maps="hsv", memory=1)
    wanted, batch = everything(store), dataset.batch(range(COUNT))[0]
    record = store.record(2)
    for step in (lambda: compact(path).kept, lambda: not expand(open_writer(path))):
        assert not step()
        assert_equal(everything(store), wanted)
        assert_equal([dataset.batch(range(COUNT))[0]], [batch])
        assert record is not None
        assert_equal([store.frames(record)], [open_store(path).frames(record)])
    assert not any(path.glob("maps/hsv/c"))


def unlocked(_handle: int, **_how: bool) -> None:
    raise OSError(37, "No locks available")


def test_a_copy_in_another_process_holds_the_store_too(path: Path) -> None:
    copy = pickle.loads(pickle.dumps(open_store(path)))
    assert compact(path).kept
    copy.close()
    assert not compact(path).kept


def test_a_store_that_nobody_refers_to_is_let_go(path: Path) -> None:
    store = open_store(path)
    del store
    assert not compact(path).kept


READERS: dict[str, tuple[str, Callable[[Path, Path], Any]]] = {
    "read": ("maps/hsv", lambda path, _: everything(open_store(path))),
    "frames": ("frames/image", lambda path, _: everything(open_store(path))),
    "export maps": ("maps/hsv", lambda path, out: export_maps(open_store(path), out)),
    "export frames": ("frames/image", lambda path, out: export_normalized(open_store(path), out)),
    "export gifs": ("frames/image", lambda path, out: export_gifs(open_store(path), out)),
    "report": ("frames/image", lambda path, out: write_report(open_store(path), out / "r.html")),
    "data set": ("maps/hsv", lambda path, _: ClipDataset(path, maps="hsv")),
    "frames of a data set": ("frames/image", lambda path, _: ClipDataset(path, frames="all")),
    "key frames": (
        "frames/image",
        lambda path, _: ClipDataset(path, frames=("onset", "apex"), memory=1).batch(range(COUNT)),
    ),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("how", ["deleted", "emptied", "another's"])
def test_a_chunk_that_is_not_the_clips_is_an_error_that_names_it(
    path: Path, tmp_path: Path, reader: str, how: str
) -> None:
    array, read = READERS[reader]
    chunks = sorted((path / array).glob("c.*"))
    if how == "deleted":
        chunks[0].unlink()
    elif how == "emptied":
        chunks[0].write_bytes(b"")
    elif reader == "key frames":
        return  # a sound chunk of another clip is found by reading the whole clip alone
    else:
        chunks[0].write_bytes(chunks[1].read_bytes())
    (tmp_path / "out").mkdir()
    with pytest.raises(DamagedError, match=f"{array} of clip made/00/c0"):
        read(path, tmp_path / "out")


def test_the_command_line_says_so_in_one_line(path: Path, tmp_path: Path) -> None:
    next((path / "maps" / "hsv").glob("c.3.*")).unlink()
    command = [sys.executable, "-m", "apexflow", "export", str(path), "--maps", str(tmp_path / "m")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "maps/hsv of clip made/03/c3 is damaged" in line


@pytest.mark.parametrize(
    "column", ["subject", "emotion", "label", "onset", "person", "catalog", "flags"]
)
@pytest.mark.parametrize("how", ["deleted", "nonsense"])
def test_a_lost_column_is_no_column_of_blanks(path: Path, column: str, how: str) -> None:
    chunk = path / "clips" / column / "c" / "0"
    if not chunk.exists():  # a column that is blank throughout
        return
    chunk.unlink() if how == "deleted" else chunk.write_bytes(b"nonsense")
    with pytest.raises(DamagedError, match=f"clips/{column}"):
        open_store(path).column(column)
    assert [damage.where for damage in verify(path)] == [f"clips/{column}"]
    with pytest.raises(DamagedError, match=f"clips/{column}"):
        ClipDataset(path, maps="hsv")


def test_a_changed_record_is_found_by_its_own_checksum(path: Path) -> None:
    record = path / "clips" / "record" / "c.2"
    text = record.read_bytes()
    assert text.count(b'"score": [1.0') == 1
    record.write_bytes(text.replace(b'"score": [1.0', b'"score": [0.0'))
    with pytest.raises(DamagedError, match="a commit record is damaged"):
        open_store(path).records()
    assert [damage.index for damage in verify(path)] == [2]


def test_a_record_in_the_wrong_row_is_not_served(path: Path) -> None:
    records = path / "clips" / "record"
    (records / "c.1").write_bytes((records / "c.2").read_bytes())
    with pytest.raises(DamagedError, match="row 1 is made/01/c1, its commit record is of"):
        ClipDataset(path, maps="hsv")


def test_a_store_of_an_earlier_version_opens(path: Path) -> None:
    """Without the columns, digests and checksums that came later; a run adds them."""
    older(path)
    store = open_store(path)
    assert store.people() == [f"made/0{i % 4}" for i in range(COUNT)]
    assert not any(store.gone())
    assert not any(store.column("flags"))
    assert verify(path) == []
    assert len(ClipDataset(path, maps="hsv")) == COUNT
    before = everything(store)
    store.close()
    add_clips(open_writer(path), random_clips(COUNT, frames=True))
    assert_equal(everything(open_store(path)), before)
    assert zarr.open_group(path, mode="r")["clips/person"][:].tolist()[0] == ""
    assert verify(path) == []


def older(path: Path) -> None:
    """Take out of a store what stores of earlier versions lack."""
    group = zarr.open_group(path, mode="r+")
    texts = [text[: text.index(', "crc32c"')] + "}" for text in group["clips/record"][:].tolist()]
    group.create_array(
        "clips/record",
        data=np.asarray(texts, np.dtypes.StringDType()),
        chunks=(1,),
        compressors=None,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=("clip",),
        overwrite=True,
    )
    for name in ADDED_COLUMNS:
        del group[f"clips/{name}"]
    for name, columns in coordinates_of(open_store(path).layout).items():
        attributes = group[name].attrs
        attributes.put({key: value for key, value in attributes.items() if key != ATTRIBUTE})
        for column in columns if name != "clips" else ():
            if column != "frame_number":
                del group[f"{name}/{column}"]
    del group["clips"].attrs["column_digests"]


def test_a_record_that_claims_gigabytes_is_not_believed(path: Path) -> None:
    record = path / "clips" / "record" / "c.2"
    data = record.read_bytes()
    assert data[:4] == struct.pack("<I", 1)  # how many texts follow
    claimed = 1 << 24
    record.write_bytes(struct.pack("<I", claimed) + data[4:])
    tracemalloc.start()
    with pytest.raises(DamagedError, match="a commit record is damaged"):
        open_store(path).records()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < claimed
    assert [damage.index for damage in verify(path)] == [2]
