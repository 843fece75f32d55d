"""The coordinates of flow, confidence, regions and maps: columns, beside the arrays they describe.

xarray opens one group at a time, and needs its coordinates in it. They are copies of the files of
``clips`` and ``frames``, byte for byte, made whenever those are written; `differing` finds one that
is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import zarr
from zarr.abc.store import Store as ZarrStore

from apexflow.storage.format import COORDINATES, Layout, picture_paths, window_of
from apexflow.storage.zarr_private import Buffer, default_buffer_prototype, sync

ATTRIBUTE = "coordinates"
"""The attribute of a group by which xarray knows them (CF conventions, 5)."""


def coordinates_of(layout: Layout) -> dict[str, dict[str, str]]:
    """Return the coordinates of each group: their names, with the columns that they are."""
    groups: dict[str, dict[str, str]] = {
        group: {name: f"{group}/{name}" for name in COORDINATES} for group in ("clips", "frames")
    }
    groups["frames"]["frame_number"] = "frames/frame_number"
    features = ("features",) if layout.features else ()
    for group in ("interpolated", "flow", "confidence", "roi", "maps", *features):
        axes = _axes(layout, group)
        for number, axis in enumerate(axes):
            prefix = f"{axis.removesuffix('s')}_" if number else ""
            found = {f"{prefix}{name}": f"{axis}/{name}" for name in COORDINATES}
            groups.setdefault(group, {}).update(found)
        if "frames" in axes:
            groups[group]["frame_number"] = "frames/frame_number"
    if layout.interpolated:
        groups["interpolated"]["frame_number"] = "interpolated/frame_number"
    return groups


def copy_coordinates(group: zarr.Group, layout: Layout) -> None:
    """Make each group's coordinates what the columns are now."""
    for name, columns in coordinates_of(layout).items():
        _name_them(group, name, columns)
        for target, source in _copies(name, columns):
            sync(_copy(group.store, source, target))


def has_coordinates(group: zarr.Group) -> bool:
    """Whether a store has coordinates: those of earlier versions get them with the next run."""
    return ATTRIBUTE in zarr.open_group(group.store, path="frames", mode="r").attrs


def differing(group: zarr.Group, layout: Layout) -> Iterator[str]:
    """Yield the paths of coordinates that are not the columns that they copy."""
    for name, columns in coordinates_of(layout).items():
        for target, source in _copies(name, columns):
            if sync(_files(group.store, target)) != sync(_files(group.store, source)):
                yield target


def _axes(layout: Layout, group: str) -> list[str]:
    """Return the groups whose columns run along the arrays of a group, ``clips`` first."""
    paths = (path for path in picture_paths(layout) if path.partition("/")[0] == group)
    long = {layout.pairs(window_of(layout, path)) is None for path in paths}
    return [name for name, found in (("clips", False), ("frames", True)) if found in long]


def _copies(group: str, columns: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (path, path of what it copies) of a group's coordinates; none in their own group."""
    for name, source in columns.items():
        if source.partition("/")[0] != group:
            yield f"{group}/{name}", source


def _name_them(group: zarr.Group, name: str, columns: Mapping[str, str]) -> None:
    found = zarr.open_group(group.store, path=name, mode="r+")
    wanted = " ".join(columns)
    if found.attrs.get(ATTRIBUTE) != wanted:
        found.attrs[ATTRIBUTE] = wanted


async def _copy(raw: ZarrStore, source: str, target: str) -> None:
    wanted, there = await _files(raw, source), await _files(raw, target)
    # Its metadata last: an array is there when its chunks are.
    for key in sorted(wanted, reverse=True):
        if there.get(key) != wanted[key]:
            await raw.set(f"{target}/{key}", _buffer(wanted[key]))
    for key in there.keys() - wanted.keys():
        await raw.delete(f"{target}/{key}")


async def _files(raw: ZarrStore, path: str) -> dict[str, bytes]:
    """Return the files of an array by their names below it."""
    prefix = f"{path}/"
    keys = [key async for key in raw.list_prefix(prefix)]
    found = {}
    for key in keys:
        value = await raw.get(key, default_buffer_prototype())
        if value is not None and not key.endswith(".partial"):
            found[key.removeprefix(prefix)] = value.to_bytes()
    return found


def _buffer(data: bytes) -> Buffer:
    return default_buffer_prototype().buffer.from_bytes(data)
