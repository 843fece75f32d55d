"""Making one array of a store, without rows yet."""

from __future__ import annotations

from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from apexflow.storage.format import (
    COLUMN_CHUNK,
    FIGURES,
    NO_NUMBER,
    NUMBER_COLUMNS,
    RESULT_NUMBER_COLUMNS,
    UNITS,
)

_NUMBERS = frozenset((*NUMBER_COLUMNS, *RESULT_NUMBER_COLUMNS, "frame_number"))


def make_column(group: zarr.Group, name: str, *, axis: str = "clip") -> None:
    """Make a column of whole numbers or of texts, as its name says."""
    if name in _NUMBERS:
        make_array(group, name, "int64", (), (), axis=axis, fill_value=NO_NUMBER)
    else:
        make_array(group, name, "str", (), (), axis=axis)


def make_floats(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dims: tuple[str, ...],
    *,
    axis: str = "clip",
) -> zarr.Array[Any]:
    """Make a column of numbers with fractions; NaN where there is none."""
    column = make_array(group, name, "float32", shape, dims, axis=axis, fill_value=np.nan)
    if name in FIGURES:
        column.attrs["figures"] = list(FIGURES[name])
    return column


def make_array(
    group: zarr.Group,
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    dims: tuple[str, ...],
    *,
    axis: str = "clip",
    rows: int = COLUMN_CHUNK,
    fill_value: Any = None,
    compressors: Any = "default",
    units: str = "",
) -> zarr.Array[Any]:
    """Make an array along ``axis``, in chunks of ``rows`` of them.

    ``shape`` and ``dims`` are those of one row; ``units`` by default what `UNITS` has for it.
    """
    size = np.dtype(dtype).itemsize if dtype.startswith("float") else 1
    # lz4 with bitshuffle costs no measurable time and takes the padding of the last chunk.
    packed = (BloscCodec(typesize=size, cname="lz4", shuffle="bitshuffle"), Crc32cCodec())
    units = units or UNITS.get(f"{group.name.strip('/')}/{name}", "")
    return group.create_array(
        name,
        shape=(0, *shape),
        chunks=(rows, *shape),
        dtype=dtype,
        fill_value=fill_value,
        compressors=packed if compressors == "default" else compressors,
        # A file for each clip and no folders: three of them to a file cost more than the clip's
        # bytes. Columns hold all clips in a file or two.
        chunk_key_encoding={"name": "default", "separator": "/" if rows == COLUMN_CHUNK else "."},
        dimension_names=(axis, *dims),
        attributes={"units": units} if units else None,
    )
