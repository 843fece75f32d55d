from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from zarr.codecs import BloscCodec, Crc32cCodec

from apexflow.storage.chunks import ChunkWriter


def make(store: Any, dtype: str, shape: tuple[int, ...], rows: int, **options: Any) -> zarr.Array:
    size = np.dtype(dtype).itemsize if dtype != "str" else 1
    packed = (BloscCodec(typesize=size, cname="lz4", shuffle="bitshuffle"), Crc32cCodec())
    options = {"compressors": None if dtype == "str" else packed} | options
    return zarr.create_array(
        store, name="a", shape=(0, *shape), chunks=(rows, *shape), dtype=dtype, **options
    )


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_zarr_reads_what_is_written(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(["uint8", "float16", "float32", "int64"]))
    rest = (
        data.draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=5))
        if data.draw(st.booleans())
        else ()
    )
    rows = data.draw(st.integers(1, 4))
    values = data.draw(hnp.arrays(dtype, (2 * rows, *rest)))
    slow, fast = make({}, dtype, rest, rows), make({}, dtype, rest, rows)
    for array in (slow, fast):
        array.resize((len(values) + 1, *rest))
    slow[: len(values)] = values
    writer = ChunkWriter.of(fast)
    assert writer is not None
    for number in range(2):
        writer.write(number, values[number * rows : (number + 1) * rows])
    assert fast[:].tobytes() == slow[:].tobytes()


@pytest.mark.parametrize("text", ["x", "Gänsefüßchen 表情", "a" * 100_000])
@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("compressors", [None, Crc32cCodec()])
def test_text(tmp_path: Path, text: str, local: bool, compressors: Any) -> None:
    store = str(tmp_path / "s.zarr") if local else {}
    array = make(store, "str", (), 1, compressors=compressors)
    array.resize((3,))
    writer = ChunkWriter.of(array)
    assert writer is not None
    writer.write(1, text)
    assert array[:].tolist() == ["", text, ""]
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize(
    "options",
    [
        {"compressors": "auto"},
        {"shards": (4, 2)},
        {"filters": zarr.codecs.TransposeCodec(order=(1, 0))},
    ],
)
def test_arrays_of_other_codecs_are_left_to_zarr(options: dict[str, Any]) -> None:
    assert ChunkWriter.of(make({}, "uint8", (2,), 2, **options)) is None


def test_a_file_where_a_folder_belongs_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    array = make(str(tmp_path / "s.zarr"), "uint8", (2,), 1)
    array.resize((3, 2))
    (tmp_path / "s.zarr" / "a" / "c").touch()
    writer = ChunkWriter.of(array)
    assert writer is not None
    with pytest.raises(OSError, match=r"Not a directory|exists"):
        writer.write(0, np.ones((1, 2), np.uint8))
    assert not list(tmp_path.rglob("*.partial"))
