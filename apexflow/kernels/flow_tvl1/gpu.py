"""TV-L1 on a GPU, for a batch of pairs at once: lays the arrays out, starts ``tvl1.cu``.

At 224x224 a pair takes 10 to 12 million pixel iterations with the default parameters, 70 to 170
iterations a level. A launch of one iteration would move 60 bytes a pixel. Four in the registers
of a tile move 19 each, the margins that tiles share included, and two pixels in three of a tile
are its own. Since a pair stops in the middle of a launch, a fifth more is computed than needed.
With warps and medians that makes 0.3 GB a pair, and the iterations alone 70 million instructions
of a warp: on an H200 (4.8 TB/s, 132 multiprocessors that start four a cycle) bounds of 15,000 and
12,000 pairs/s, by count, not measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from apexflow.kernels.flow_tvl1.arguments import Array, Frames, Pyramid, Solver, TVL1Frame
from apexflow.kernels.gpu import Device, in_batches

SOURCE = "flow_tvl1/tvl1.cu"
# As in the source.
THREADS = 256
STEPS = 4
TILE = (32, 64)
MEDIAN_TILE = (8, 32)
DONE, U_SIDE = 0, 1

# A block answers for what lies a margin inside its tile, or at the image's edge.
MARGIN = STEPS
# Rows start on the 32 bytes that memory is read by.
ALIGNMENT = 8
# OpenCV takes a smaller squared gradient for none.
EPSILON = 1.1920929e-07


def prepare(image: Array, pyramid: Pyramid, *, device: Device) -> TVL1Frame:
    """Return an (H, W) image of the device with its pyramid built."""
    levels = _pyramid(image[None], pyramid, device)
    return TVL1Frame(image.shape, pyramid, tuple(level[0] for level in levels))


def tvl1(
    prev: Frames,
    next_: Frames,
    start: Array | None,
    count: int | None,
    pyramid: Pyramid,
    solver: Solver,
    *,
    device: Device,
) -> Array:
    """Compute the flow of pairs whose arrays lie on the device; the result stays there.

    Parameters
    ----------
    prev, next_
        As in `apexflow.kernels.tvl1`, checked.
    start : array or None
        (N, H, W, 2) flow to start from, N = 1 for a single pair.
    count : int or None
        Length of the batch, None for a single pair.
    pyramid, solver
        The parameters.
    device : Device
        Where the arrays lie.

    Returns
    -------
    array
        (H, W, 2) or (N, H, W, 2) float32. The host waits once for each median but a warp's
        first, to read whether any pair of the batch still iterates.
    """

    def flow(part: slice) -> Array:
        return _flow(
            _levels(prev, part, pyramid, device),
            _levels(next_, part, pyramid, device),
            None if start is None else start[part],
            part.stop - part.start,
            pyramid.scale_step,
            solver,
            device,
        )

    flows = in_batches(flow, count or 1, _bytes_of_pair(prev.shape, pyramid), device)
    if count is None:
        return flows[0][0]
    return flows[0] if len(flows) == 1 else device.xp.concatenate(flows)


def _flow(
    first: Sequence[Array],
    second: Sequence[Array],
    start: Array | None,
    count: int,
    step: float,
    solver: Solver,
    device: Device,
) -> Array:
    """Return the (N, H, W, 2) flow, coarse to fine."""
    if start is None:
        flow = device.xp.zeros((count, *first[-1].shape[1:], 2), np.float32)
    else:
        flow = device.xp.array(start, dtype=np.float32, order="C")
        for level in first[1:]:
            flow = _resized(flow, level.shape[1:], (1 / step,) * 2, step, device)
    for previous, following in zip(reversed(first), reversed(second), strict=True):
        if previous is not first[-1]:
            size = previous.shape[1:]
            spacing = [1 / (new / old) for new, old in zip(size, flow.shape[1:3], strict=True)]
            flow = _resized(flow, size, spacing, 1 / step, device)
        flow = _Level(previous, following, flow, solver, device).refined()
    return flow


class _Level:
    """One pyramid level of a batch.

    Parameters
    ----------
    first, second : array
        (N, h, w) images; a single one, (1, h, w), serves all pairs.
    flow : array
        (N, h, w, 2) to start from.
    solver : Solver
        The parameters.
    device : Device
        Where all lie.
    """

    def __init__(
        self, first: Array, second: Array, flow: Array, solver: Solver, device: Device
    ) -> None:
        self._device = device
        self._solver = solver
        self._first = first
        self._second = second
        self._gradients = _gradients(second, device)
        xp = device.xp
        count, height, self._width, _ = flow.shape
        pitch = -(-self._width // ALIGNMENT) * ALIGNMENT
        self._sizes = (np.int32(count), np.int32(height), np.int32(self._width), np.int32(pitch))
        self._step = np.float32(solver.tau / solver.theta)
        # The two sides come first. Columns beyond the width are zero and stay so.
        self._u = xp.zeros((2, 2, count, height, pitch), np.float32)
        self._u[0, ..., : self._width] = xp.moveaxis(flow, -1, 0) * self._step
        self._p = xp.zeros((2, 4, count, height, pitch), np.float32)
        self._slopes = xp.zeros((3, count, height, pitch), np.float32)
        size = (height, self._width)
        self._tiles = _grid(size, TILE, MARGIN, count)
        self._median_tiles = _grid(size, MEDIAN_TILE, 0, count)
        self._sums = xp.empty((2, count, STEPS, self._tiles[0] * self._tiles[1]), np.float64)
        self._progress = xp.zeros((2, count, 4), np.int32)
        self._present = 0

    def refined(self) -> Array:
        """Return the (N, h, w, 2) flow of this level."""
        for _ in range(self._solver.warps):
            self._linearise()
            for number in range(self._solver.outer_iterations):
                if number > 0 and self._all_done():
                    break
                if self._solver.median_filtering > 1:
                    self._filter()
                for steps in _portions(self._solver.inner_iterations):
                    self._iterate(steps)
                self._iterate(0)
        return self._collected()

    def _linearise(self) -> None:
        """Warp the second images by the present flow; all pairs iterate again."""
        count, height, width, pitch = self._sizes
        images = np.int32(len(self._first)), np.int32(len(self._second))
        self._progress[self._present, :, DONE] = 0
        self._device.kernel(SOURCE, "linearise")(
            _grid_of_pixels(int(count), int(height), int(width)),
            (THREADS,),
            (
                self._first,
                self._second,
                self._gradients,
                self._u,
                self._slopes,
                self._progress[self._present],
                count,
                *images,
                height,
                width,
                pitch,
                self._step,
                np.float32(self._solver.cubic),
            ),
        )

    def _filter(self) -> None:
        arguments = (self._u, *self._before_and_after(self._progress), *self._sizes)
        kernel = self._device.kernel(SOURCE, f"median{self._solver.median_filtering}")
        kernel(self._median_tiles, (THREADS,), arguments)
        self._present = 1 - self._present

    def _iterate(self, steps: int) -> None:
        """Take up to STEPS iterations; 0 only goes back where the last ones were too many."""
        solver, step = self._solver, self._step
        area = int(self._sizes[1]) * self._width
        enough = float(np.float32(solver.epsilon * solver.epsilon * area)) * float(step) ** 2
        self._device.kernel(SOURCE, "iterate")(
            self._tiles,
            (THREADS,),
            (
                self._u,
                self._p,
                self._slopes,
                *self._before_and_after(self._progress),
                *self._before_and_after(self._sums),
                *self._sizes,
                np.int32(steps),
                np.float32(solver.lambda_ * solver.theta) * step * step,
                step * np.float32(solver.theta),
                np.float32(EPSILON) / (step * step),
                np.float64(enough),
            ),
        )
        self._present = 1 - self._present

    def _before_and_after(self, twice: Array) -> tuple[Array, Array]:
        return twice[self._present], twice[1 - self._present]

    def _all_done(self) -> bool:
        return bool(self._device.to_host(self._progress[self._present, :, DONE].all()))

    def _collected(self) -> Array:
        xp = self._device.xp
        second = self._progress[self._present, :, U_SIDE, None, None] > 0
        valid = xp.where(second, self._u[1], self._u[0])[..., : self._width]
        return xp.ascontiguousarray(xp.moveaxis(valid, 0, -1)) * (np.float32(1) / self._step)


def _levels(frames: Frames, part: slice, pyramid: Pyramid, device: Device) -> list[Array]:
    """Return the levels of a part of the batch, (n, h, w), finest first; (1, h, w) of one frame."""
    if isinstance(frames, TVL1Frame):
        return [level[None] for level in frames.levels]
    return _pyramid(frames[None] if frames.ndim == 2 else frames[part], pyramid, device)


def _pyramid(images: Array, pyramid: Pyramid, device: Device) -> list[Array]:
    white = np.float32(1 if images.dtype == np.uint8 else 255)
    levels = [images.astype(np.float32, order="C") * white]
    step = pyramid.scale_step
    for size in pyramid.sizes(images.shape)[1:]:
        reduced = _resized(levels[-1][..., None], size, (1 / step,) * 2, 1, device)
        levels.append(reduced[..., 0])
    return levels


def _resized(
    images: Array, size: Sequence[int], spacing: Sequence[float], factor: float, device: Device
) -> Array:
    """Resize (n, h, w, channels) bilinearly, samples ``spacing`` (y, x) apart, times a factor."""
    count, height, width, channels = images.shape
    if (height, width) == tuple(size):  # OpenCV then copies, whatever the spacing
        return images * np.float32(factor)
    target = device.xp.empty((count, *size, channels), np.float32)
    integers = (np.int32(n) for n in (height, width, *size, channels))
    device.kernel(SOURCE, "resize")(
        _grid_of_pixels(count, *size),
        (THREADS,),
        (images, target, *integers, *(np.float64(s) for s in spacing), np.float32(factor)),
    )
    return target


def _gradients(images: Array, device: Device) -> Array:
    """Return the (2, n, h, w) horizontal and vertical slopes of the images."""
    gradients = device.xp.empty((2, *images.shape), np.float32)
    device.kernel(SOURCE, "gradient")(
        _grid_of_pixels(*images.shape),
        (THREADS,),
        (images, gradients, *(np.int32(n) for n in images.shape)),
    )
    return gradients


def _portions(iterations: int) -> Iterator[int]:
    """Split iterations into launches."""
    for first in range(0, iterations, STEPS):
        yield min(STEPS, iterations - first)


def _grid(
    size: tuple[int, int], tile: tuple[int, int], margin: int, count: int
) -> tuple[int, int, int]:
    """Return how many overlapping tiles cover the image, in x and in y, and the pairs."""
    tiles = [
        1 + max(0, -((tall - side) // (tall - 2 * margin)))
        for side, tall in zip(size, tile, strict=True)
    ]
    return tiles[1], tiles[0], count


def _grid_of_pixels(count: int, height: int, width: int) -> tuple[int]:
    return (count * -(-height * width // THREADS),)


def _bytes_of_pair(shape: Sequence[int], pyramid: Pyramid) -> int:
    """Return the memory that a pair takes at most, at the finest level."""
    images = 2 * sum(height * width for height, width in pyramid.sizes(shape))
    height, width = shape[-2:]
    # Both sides of U and P, slopes, gradients, and the flow before, in between and after.
    return 4 * (images + (15 + 2 + 6) * height * (width + ALIGNMENT))
