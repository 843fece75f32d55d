"""Farnebäck's flow on the GPU: the steps of `cpu`, each for a whole batch.

The kernels are launched level by level without waiting for any of them, and nothing comes back
to the host. The small tables of `levels` go up in one transfer a call.

A pair of 224x224 moves 38 MB with the default parameters, by count of what the kernels must
read and write: per pixel and iteration 68 bytes to compare the polynomials (20 + 20 read, 8 of
flow, 20 written), 60 to sum the columns, 28 to sum the rows and solve, which is 31 MB for three
iterations at three levels; 3 MB for the polynomials, 4 for everything else. The 4.8 TB/s of an
H200 would move 126,000 such pairs a second. So the three steps of an iteration stay apart, which
lets the sums slide over the whole height in float64, as exact as on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels._validate import check_pairs
from apexflow.kernels.flow_farneback.arguments import (
    Averaging,
    Expansion,
    FarnebackFrame,
    Frames,
)
from apexflow.kernels.flow_farneback.cpu import RIDGE
from apexflow.kernels.flow_farneback.levels import Level, Taps, poly_taps, pyramid
from apexflow.kernels.gpu import Device, in_batches

SOURCE = "flow_farneback/farneback.cu"

# What a pair holds at its finest level, in float32 a pixel: five coefficients of each frame, here
# and at the level before, five observations, five sums, flow, and the images as they are and
# blurred. The level before may be nearly as large, but then needs no observations any more.
_FLOATS_PER_PIXEL = 32

_TILE = 32, 8
_THREADS = 256
_ROWS_PER_THREAD = 8  # of the kernel `weigh`


def prepare(image: Any, expansion: Expansion, *, device: Device) -> FarnebackFrame:
    """Do what `prepare_farneback` does; the coefficients stay on the device."""
    return _OnGpu(device, image.shape, expansion).prepare(image)


def farneback(
    prev: Frames, next_: Frames, expansion: Expansion, averaging: Averaging, *, device: Device
) -> Any:
    """Do what `apexflow.kernels.farneback` does with checked arguments, on the device.

    The flow is the CPU's within 1e-3 px. A batch that the free memory cannot hold is computed
    in parts.
    """
    count = check_pairs(prev, next_)
    on_gpu = _OnGpu(device, prev.shape[-2:], expansion, averaging)
    flow = on_gpu.flow(prev, next_, count or 1)
    return flow if count else flow[0]


class _Tables(NamedTuple):
    """The tables of a `plan.Level`, on the device."""

    rows: Taps
    columns: Taps
    flow_rows: Taps
    flow_columns: Taps
    border: Any
    border_rows: Any


class _OnGpu:
    """The steps for images of one size on one device."""

    def __init__(
        self,
        device: Device,
        shape: tuple[int, int],
        expansion: Expansion,
        averaging: Averaging | None = None,
    ) -> None:
        self._device = device
        self._shape = shape
        self._expansion = expansion
        self._averaging = averaging or Averaging(winsize=1, iterations=0)
        self._levels = pyramid(*shape, expansion.pyr_scale, expansion.levels)
        filters, *self._factors = poly_taps(expansion.poly_n, expansion.poly_sigma)
        taps = np.zeros((expansion.poly_n + 1, 4), np.float32)
        taps[:, :3] = np.transpose(filters)
        tables = [taps, self._averaging.window]
        for level in self._levels:
            tables += _tables(level)
        uploaded = _upload(device, tables)
        self._taps, self._window = next(uploaded), next(uploaded)
        self._tables = [_named(uploaded) for _ in self._levels]

    def prepare(self, image: Any) -> FarnebackFrame:
        coefficients = tuple(self._expand(image[None]))
        return FarnebackFrame(image.shape, self._expansion, coefficients)

    def flow(self, prev: Frames, next_: Frames, count: int) -> Any:
        """Return the flow of all pairs, (count, H, W, 2)."""
        if count > 1:
            prev, next_ = self._shared(prev), self._shared(next_)
        flow = self._empty(count, *self._shape, 2)

        def refine(batch: slice) -> None:
            self._refine(self._frames(prev, batch), self._frames(next_, batch), flow[batch])

        size = 4 * _FLOATS_PER_PIXEL * prod(self._shape)
        in_batches(refine, count, size, self._device)
        return flow

    def _shared(self, frames: Frames) -> Frames:
        """Prepare a frame that all pairs share, once for all batches."""
        single = not isinstance(frames, FarnebackFrame) and frames.ndim == 2
        return self.prepare(frames) if single else frames

    def _frames(self, frames: Frames, batch: slice) -> Iterable[Any]:
        """Return, level by level, the coefficients of a batch's frames or of the one for all."""
        if isinstance(frames, FarnebackFrame):
            return frames.coefficients
        return self._expand(frames[None] if frames.ndim == 2 else frames[batch])

    def _expand(self, images: Any) -> Iterator[Any]:
        """Yield the coefficients of each level, coarsest first, (n, 5, h, w)."""
        images = self._device.xp.ascontiguousarray(images, dtype=np.float32)
        for level, tables in zip(self._levels, self._tables, strict=True):
            if level is self._levels[-1]:
                yield self._polynomials(self._blur(images))
            else:
                rows = self._filter(images, 1, tables.rows)
                yield self._polynomials(self._filter(rows, 2, tables.columns))

    def _blur(self, images: Any) -> Any:
        blurred = self._empty(*images.shape)
        self._launch("blur", *_tiles(images.shape), images, blurred, *images.shape[1:])
        return blurred

    def _filter(self, array: Any, axis: int, taps: Taps, out: Any = None) -> Any:
        """Filter along axis 1 or 2."""
        length, count = taps.source.shape
        size, inner = array.shape[axis], prod(array.shape[axis + 1 :])
        if out is None:
            out = self._empty(*array.shape[:axis], length, *array.shape[axis + 1 :])
        blocks, threads = _strips(length * inner)
        grid = blocks, prod(array.shape[1:axis]), len(array)
        self._launch("filter", grid, (threads,), array, out, size, length, inner, *taps, count)
        return out

    def _polynomials(self, images: Any) -> Any:
        count, height, width = images.shape
        coefficients = self._empty(count, 5, height, width)
        n = self._expansion.poly_n
        tile_width, tile_height = _TILE
        arguments = images, self._taps, n, *self._factors, coefficients, height, width
        shared = 4 * 3 * tile_height * (tile_width + 2 * n)
        self._launch("expand", *_tiles(images.shape), *arguments, shared_bytes=shared)
        return coefficients

    def _refine(self, first: Iterable[Any], second: Iterable[Any], out: Any) -> None:
        """Refine the flow from level to level, given both frames' coefficients of each."""
        coarser = None
        for level, tables, a, b in zip(self._levels, self._tables, first, second, strict=True):
            finest = level is self._levels[-1]
            flow = out if finest else self._empty(len(out), level.height, level.width, 2)
            if coarser is None:
                flow[...] = 0
            else:
                wide = self._filter(coarser, 2, tables.flow_columns)
                self._filter(wide, 1, tables.flow_rows, flow)
            self._iterate(a, b, flow, tables)
            coarser = flow

    def _iterate(self, first: Any, second: Any, flow: Any, tables: _Tables) -> None:
        """Improve the flow of one level in place."""
        count, height, width, _ = flow.shape
        frames = first, int(len(first) > 1), second, int(len(second) > 1)
        weights = tables.border, tables.border_rows
        observations, columns = (self._empty(count, 5, height, width) for _ in range(2))
        for _ in range(self._averaging.iterations):
            arguments = *frames, flow, *weights, observations, height, width
            self._launch("observe", *_tiles(flow.shape), *arguments)
            if self._averaging.window.size:
                self._solve_gaussian(observations, columns, flow)
            else:
                self._solve_box(observations, columns, flow)

    def _solve_box(self, observations: Any, columns: Any, flow: Any) -> None:
        """Sum the observations over a box and solve for the flow."""
        count, height, width, _ = flow.shape
        winsize = self._averaging.winsize
        side = winsize // 2 * 2 + 1
        blocks, threads = _strips(5 * width)
        sliding = observations, columns, side, height, width
        self._launch("slide", (blocks, count), (threads,), *sliding)
        ridge = RIDGE * winsize**4  # since the sums are not divided by winsize²
        finishing = columns, flow, side, ridge, height, width
        self._launch_by_row("finish_box", flow.shape, side // 2, *finishing)

    def _solve_gaussian(self, observations: Any, columns: Any, flow: Any) -> None:
        """Average the observations with Gaussian weights and solve for the flow."""
        count, height, width, _ = flow.shape
        reach = self._window.size // 2
        blocks, threads = _strips(5 * width)
        grid = blocks, -(-height // _ROWS_PER_THREAD), count
        weighing = observations, columns, self._window, reach, height, width
        self._launch("weigh", grid, (threads,), *weighing)
        finishing = columns, flow, self._window, reach, RIDGE, height, width
        self._launch_by_row("finish_gaussian", flow.shape, reach, *finishing)

    def _launch_by_row(
        self, name: str, shape: tuple[int, ...], reach: int, *arguments: Any
    ) -> None:
        """Start a kernel whose blocks share what their windows cover of a row."""
        count, height, width = shape[:3]
        strips, strip = _strips(width)
        shared = 4 * 5 * min(strip + 2 * reach, width)
        self._launch(name, (strips, height, count), (strip,), *arguments, shared_bytes=shared)

    def _launch(
        self,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *arguments: Any,
        shared_bytes: int = 0,
    ) -> None:
        """Start a kernel; ints and floats become the kernels' int and float."""
        exact = tuple(_exact(value) for value in arguments)
        self._device.kernel(SOURCE, name)(grid, block, exact, shared_bytes=shared_bytes)

    def _empty(self, *shape: int) -> Any:
        return self._device.xp.empty(shape, np.float32)


def _exact(value: Any) -> Any:
    if isinstance(value, int):
        return np.int32(value)
    return np.float32(value) if isinstance(value, float) else value


def _tiles(shape: tuple[int, ...]) -> tuple[tuple[int, int, int], tuple[int, int]]:
    """Return grid and block of a kernel with a thread for each pixel of (n, h, w, ...)."""
    count, height, width = shape[:3]
    return (-(-width // _TILE[0]), -(-height // _TILE[1]), count), _TILE


def _strips(length: int) -> tuple[int, int]:
    """Cut a line into blocks that are about alike and of whole warps; return count and size."""
    blocks = -(-length // _THREADS)
    threads = -(-length // blocks)
    return blocks, threads + -threads % 32


def _tables(level: Level) -> list[NDArray[Any]]:
    """Return the tables of a level in the order of `_Tables`."""
    taps = level.rows, level.columns, level.flow_rows, level.flow_columns
    filters = [table for tap in taps for table in tap]
    return [*filters, level.border[:, : level.width], level.border_rows]


def _named(tables: Iterator[Any]) -> _Tables:
    """Take the tables of one level."""
    rows, columns, flow_rows, flow_columns = (Taps(next(tables), next(tables)) for _ in range(4))
    return _Tables(rows, columns, flow_rows, flow_columns, next(tables), next(tables))


def _upload(device: Device, tables: Sequence[NDArray[Any]]) -> Iterator[Any]:
    """Bring tables of float32 or integers to the device in one transfer, and yield each there."""
    kinds = [np.float32 if table.dtype.kind == "f" else np.int32 for table in tables]
    flat = [t.astype(k).reshape(-1).view(np.int32) for t, k in zip(tables, kinds, strict=True)]
    # Each begins at a multiple of 16 bytes: the taps of the polynomials are read by four.
    flat = [np.pad(table, (0, -len(table) % 4)) for table in flat]
    ends = np.cumsum([len(table) for table in flat])
    words = device.xp.asarray(np.concatenate(flat))
    for table, kind, part, end in zip(tables, kinds, flat, ends, strict=True):
        start = int(end) - len(part)
        yield words[start : start + table.size].view(kind).reshape(table.shape)
