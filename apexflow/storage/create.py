"""Making an empty store: its groups, its arrays and what they are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from apexflow.storage.format import (
    COLUMN_CHUNK,
    FORMAT,
    FRAME_CHUNK,
    FRAME_FLOAT_COLUMNS,
    NO_NUMBER,
    NUMBER_COLUMNS,
    PAIR_CHUNK,
    RESULT_NUMBER_COLUMNS,
    RESULT_TEXT_COLUMNS,
    TEXT_COLUMNS,
    Layout,
    float_columns,
)
from apexflow.storage.target import (
    BEING_CREATED,
    Target,
    disk_errors,
    not_ours,
    root_attributes,
    sync_all,
    target_name,
    zarr_target,
)
from apexflow.storage.writer import StoreWriter


def create_store(
    target: Target,
    *,
    layout: Layout,
    recipe: Mapping[str, Any],
    recipe_hash: str,
    provenance: Mapping[str, Any],
) -> StoreWriter:
    """Make an empty store of format 1 at ``target``: a path, a URL or a Zarr store.

    Raises `ApexflowError` when something else is there.
    """
    name = target_name(target)
    described = {
        "format": FORMAT,
        "recipe": dict(recipe),
        "recipe_hash": recipe_hash,
        "layout": layout.to_dict(),
        **provenance,
    }
    with disk_errors(
        f"cannot create the store {name}", "make room there, or choose another output"
    ):
        try:
            begun = root_attributes(target) == BEING_CREATED
            group = zarr.create_group(
                zarr_target(target), attributes=dict(BEING_CREATED), overwrite=begun
            )
        except (FileExistsError, zarr.errors.ContainsGroupError, zarr.errors.ContainsArrayError):
            raise not_ours(name) from None
        _make_arrays(group, layout)
        sync_all(target)
        # Last: a store whose creation was cut short says so, and is made again.
        group.attrs.put(described)
    return StoreWriter(group, name)


def _make_arrays(group: zarr.Group, layout: Layout) -> None:
    clips = group.create_group("clips", attributes={"count": 0, "complete": True})
    for name in (*TEXT_COLUMNS, *RESULT_TEXT_COLUMNS):
        _make(clips, name, "str", (), ())
    for name in (*NUMBER_COLUMNS, *RESULT_NUMBER_COLUMNS):
        _make(clips, name, "int64", (), (), fill_value=NO_NUMBER)
    for name, (shape, dims) in float_columns(layout).items():
        column = _make(clips, name, "float32", shape, dims, fill_value=np.nan)
        if name == "roi_box":
            column.attrs["regions"] = list(layout.region_boxes)
    # One chunk a clip, uncompressed: the commit is one small file, written whole.
    _make(clips, "record", "str", (), (), rows=1, compressors=None)
    stages = len(layout.stages)
    timings = _make(clips, "timings", "float32", (stages,), ("stage",), rows=1, fill_value=np.nan)
    timings.attrs["stages"] = list(layout.stages)
    frames = group.create_group("frames")
    _make(frames, "frame_number", "int64", (), (), axis="frame", fill_value=NO_NUMBER)
    for name, (shape, dims) in FRAME_FLOAT_COLUMNS.items():
        _make(frames, name, "float32", shape, dims, axis="frame", fill_value=np.nan)
    if layout.keep_frames:
        _make(frames, "image", "uint8", layout.crop, ("y", "x"), axis="frame", rows=FRAME_CHUNK)
    _make_flow_arrays(group, layout)
    _make_map_arrays(group, layout)


def _make_flow_arrays(group: zarr.Group, layout: Layout) -> None:
    size, dtype = layout.crop, layout.flow_dtype
    flow = group.create_group("flow", attributes={"units": "pixels of the crop"})
    for window in layout.windows:
        shape, dims = (2, *size), ("component", "y", "x")
        _make_of_pairs(
            flow, window, dtype, shape, dims, layout=layout, window=window, fill_value=np.nan
        )
    if not layout.regions:
        return
    attributes = {"units": layout.region_units, "regions": list(layout.regions)}
    roi = group.create_group("roi", attributes=attributes)
    for window in layout.windows:
        region_shape = (len(layout.regions), 2, *layout.region_size)
        region_dims = ("region", "component", "y", "x")
        _make_of_pairs(
            *(roi, window, dtype, region_shape, region_dims),
            layout=layout,
            window=window,
            fill_value=np.nan,
        )


def _make_map_arrays(group: zarr.Group, layout: Layout) -> None:
    maps = group.create_group("maps")
    for name, wanted in layout.maps.items():
        # Maps may differ in size, and xarray wants one size a dimension.
        shape: tuple[int, ...] = (*wanted.size, 3)
        dims: tuple[str, ...] = (f"{name}_y", f"{name}_x", "rgb")
        if wanted.regions:
            shape, dims = (len(layout.regions), *shape), ("region", *dims)
        _make_of_pairs(maps, name, "uint8", shape, dims, layout=layout, window=wanted.window)


def _make_of_pairs(
    group: zarr.Group,
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    dims: tuple[str, ...],
    *,
    layout: Layout,
    window: str,
    fill_value: Any = None,
) -> None:
    """Make an array of a window's frame pairs: a row a clip, or a row a frame."""
    pairs = layout.windows[window]
    if pairs is None:
        options: dict[str, Any] = {"axis": "frame", "rows": PAIR_CHUNK}
    else:
        options = {"rows": 1}
        if pairs > 1:
            shape, dims = (pairs, *shape), (f"{window}_step", *dims)
    _make(group, name, dtype, shape, dims, fill_value=fill_value, **options)


def _make(
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
) -> zarr.Array[Any]:
    size = 4 if dtype == "float32" else 2 if dtype == "float16" else 1
    # lz4 with bitshuffle costs no measurable time and takes the padding of the last chunk.
    packed = (BloscCodec(typesize=size, cname="lz4", shuffle="bitshuffle"), Crc32cCodec())
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
    )
