"""Making an empty store: its groups, its arrays and what they are called."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from apexflow.storage.arrays import make_array, make_column, make_floats
from apexflow.storage.format import (
    COORDINATES,
    FORMAT,
    FRAME_CHUNK,
    FRAME_FLOAT_COLUMNS,
    MAP_UNITS,
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

FLOW_UNITS = "pixels of the crop"


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
    for name in (*TEXT_COLUMNS, *RESULT_TEXT_COLUMNS, *NUMBER_COLUMNS, *RESULT_NUMBER_COLUMNS):
        make_column(clips, name)
    for name, (shape, dims) in float_columns(layout).items():
        column = make_floats(clips, name, shape, dims)
        if name == "roi_box":
            column.attrs["regions"] = list(layout.region_boxes)
    # One chunk a clip, uncompressed: the commit is one small file, written whole. Its checksum is
    # looked at first: a text that is damaged may claim gigabytes.
    make_array(clips, "record", "str", (), (), rows=1, compressors=Crc32cCodec())
    stages = len(layout.stages)
    timings = make_array(
        clips, "timings", "float32", (stages,), ("stage",), rows=1, fill_value=np.nan
    )
    timings.attrs["stages"] = list(layout.stages)
    frames = group.create_group("frames")
    for name in ("frame_number", *COORDINATES):
        make_column(frames, name, axis="frame")
    for name, (shape, dims) in FRAME_FLOAT_COLUMNS.items():
        make_floats(frames, name, shape, dims, axis="frame")
    if layout.keep_frames:
        make_array(
            frames, "image", "uint8", layout.crop, ("y", "x"), axis="frame", rows=FRAME_CHUNK
        )
    _make_interpolated_arrays(group, layout)
    _make_flow_arrays(group, layout)
    _make_map_arrays(group, layout)
    _make_feature_arrays(group, layout)


def _make_interpolated_arrays(group: zarr.Group, layout: Layout) -> None:
    count = layout.interpolated
    if not count:
        return
    made = group.create_group("interpolated")
    dims = ("position", "y", "x")
    make_array(made, "image", "uint8", (count, *layout.crop), dims, rows=1)
    make_array(made, "frame_number", "float64", (count,), dims[:1], rows=1, fill_value=np.nan)


def _make_flow_arrays(group: zarr.Group, layout: Layout) -> None:
    size, dtype = layout.crop, layout.flow_dtype
    flow = group.create_group("flow", attributes={"units": FLOW_UNITS})
    for window in layout.windows:
        shape, dims = (2, *size), ("component", "y", "x")
        _make_of_pairs(
            *(flow, window, dtype, shape, dims),
            layout=layout,
            window=window,
            fill_value=np.nan,
            units=FLOW_UNITS,
        )
    if layout.confidence_dtype:
        _make_confidence_arrays(group, layout)
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
            units=layout.region_units,
        )


def _make_confidence_arrays(group: zarr.Group, layout: Layout) -> None:
    confidence = group.create_group("confidence", attributes={"units": "1"})
    for window in layout.windows:
        _make_of_pairs(
            *(confidence, window, layout.confidence_dtype, layout.crop, ("y", "x")),
            layout=layout,
            window=window,
            fill_value=np.nan,
            units="1",
        )


def _make_map_arrays(group: zarr.Group, layout: Layout) -> None:
    maps = group.create_group("maps", attributes={"units": MAP_UNITS})
    for name, wanted in layout.maps.items():
        # Maps may differ in size, and xarray wants one size a dimension.
        shape: tuple[int, ...] = (*wanted.size, 3)
        dims: tuple[str, ...] = (f"{name}_y", f"{name}_x", "rgb")
        if wanted.regions:
            shape, dims = (len(layout.regions), *shape), ("region", *dims)
        _make_of_pairs(
            *(maps, name, "uint8", shape, dims),
            layout=layout,
            window=wanted.window,
            units=MAP_UNITS,
        )


def _make_feature_arrays(group: zarr.Group, layout: Layout) -> None:
    if not layout.features:
        return
    features = group.create_group("features")
    for name, wanted in layout.features.items():
        shape, dims = (wanted.length,), (f"{name}_part",)
        made = make_array(features, name, "float32", shape, dims, rows=1, fill_value=np.nan)
        made.attrs["parts"] = {axis: list(labels) for axis, labels in wanted.parts.items()}


def _make_of_pairs(
    group: zarr.Group,
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    dims: tuple[str, ...],
    *,
    layout: Layout,
    window: str,
    units: str,
    fill_value: Any = None,
) -> None:
    """Make an array of a window's frame pairs: a row a clip, or a row a frame."""
    pairs = layout.pairs(window)
    if pairs is None:
        options: dict[str, Any] = {"axis": "frame", "rows": PAIR_CHUNK}
    else:
        options = {"rows": 1}
        if pairs > 1:
            shape, dims = (pairs, *shape), (f"{window}_step", *dims)
    make_array(group, name, dtype, shape, dims, fill_value=fill_value, units=units, **options)
