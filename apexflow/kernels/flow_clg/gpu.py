"""CLG on the GPU, for a batch of pairs at once: lays the arrays out, starts ``clg.cu``.

Every step of conjugate gradients is three launches; each pair stops on its own, and none of them
waits for the host. The solution moves most: by count 120 bytes a pixel and step, at 224x224 and
with all steps .65 GB a pair, which at the 4.8 TB/s of an H200 bounds it by 7,000 pairs/s. Not
measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.confidence import ERROR_OF_ENERGY, HALF_SURE, ROUNDING, UNSEEN
from apexflow.kernels.flow_clg.arguments import (
    FIRST_SMOOTHNESS,
    OUTLIER_LEVELS,
    OUTLIER_RHO,
    SAMPLING,
    Array,
    CLGFrame,
    CLGSequence,
    Doubles,
    Frames,
    Solver,
    level_sizes,
)
from apexflow.kernels.gpu import Device, in_batches
from apexflow.kernels.light.gaussian import Floats, gaussian_taps
from apexflow.kernels.light.gpu import blur

SOURCE = "flow_clg/clg.cu"
THREADS = 256  # as in the source
# Of floats a pixel: the images with their pyramids (2 x 4/3), mean and change, five products, what
# is between the two directions of their average, and that; 3 of the preconditioner, flow before,
# now and after, residual, direction and what the matrix makes of it.
_FLOATS_PER_PIXEL = 36
_TINY = np.float32(1e-20)
_MOST_PLANES = 65535  # what a grid takes along its second axis


def prepare(image: Array, levels: int, *, device: Device) -> CLGFrame:
    """Return an (H, W) image of the device with its pyramid built."""
    images = _pyramid(image[None], levels, device)
    return CLGFrame(image.shape, levels, tuple(level[0] for level in images))


def clg(
    prev: Frames,
    next_: Frames,
    count: int | None,
    levels: int,
    solver: Solver,
    confidence: bool,
    *,
    device: Device,
) -> tuple[Array, Array]:
    """Compute the flow of pairs whose arrays lie on the device; the results stay there.

    Parameters
    ----------
    prev, next_
        As in `apexflow.kernels.clg`, checked.
    count : int or None
        Length of the batch, None for a single pair.
    levels, solver, confidence
        The parameters.
    device : Device
        Where the arrays lie.

    Returns
    -------
    flow : array
        (H, W, 2) or (N, H, W, 2) float32.
    confidence : array
        (H, W) or (N, H, W) float32, None unless asked for.
    """

    def part(of: slice) -> tuple[Array, Array]:
        first, second = (_levels(frames, of, levels, device) for frames in (prev, next_))
        level = _flow(first, second, of.stop - of.start, solver, device)
        sure = level.confidence(first[0], second[0]) if confidence else None
        return device.xp.ascontiguousarray(device.xp.moveaxis(level.flow, 1, -1)), sure

    height, width = prev.shape[-2:]
    parts = in_batches(part, count or 1, bytes_of_pair(height, width), device)
    flow = _joined([piece for piece, _ in parts], device)
    sure: Array = _joined([piece for _, piece in parts], device) if confidence else None
    if count is not None:
        return flow, sure
    return flow[0], None if sure is None else sure[0]


def bytes_of_pair(height: int, width: int) -> int:
    """Return the memory that a pair takes at most, at the finest level."""
    return 4 * _FLOATS_PER_PIXEL * height * width


def _joined(pieces: Sequence[Array], device: Device) -> Array:
    return pieces[0] if len(pieces) == 1 else device.xp.concatenate(pieces)


class _Level:
    """One pyramid level of a batch.

    Parameters
    ----------
    flow : array
        (N, 2, h, w) to start from; improved in place.
    rho : float
        Of this level.
    solver : Solver
        The other parameters.
    device : Device
        Where all lies.
    """

    def __init__(self, flow: Array, rho: float, solver: Solver, device: Device) -> None:
        self.flow = flow
        self._solver, self._device = solver, device
        self._count, _, height, width = flow.shape
        self._sizes = np.int32(height), np.int32(width)
        self._blocks = -(-height * width // THREADS)
        self._scale = np.float32(1) / np.float32(solver.alpha)
        self._taps = device.xp.asarray(gaussian_taps(rho))
        self._averaged: Array = None

    def refine(self, first: Array, second: Array) -> None:
        """Improve the flow from the images of this level, each (N, h, w) or (1, h, w)."""
        for _ in range(self._solver.warps):
            self.fit(*self._compare(first, second))

    def _compare(self, first: Array, second: Array) -> tuple[Array, Array]:
        """Return mean and change of the images warped by the flow, see `cpu.compare`."""
        shape = self._count, *self.flow.shape[2:]
        mean, change = (self._device.xp.empty(shape, np.float32) for _ in range(2))
        images = np.int32(len(first)), np.int32(len(second))
        self._launch("compare_pair", first, second, self.flow, mean, change, *images, *self._sizes)
        return mean, change

    def fit(self, mean: Array, change: Array) -> None:
        """Improve the flow from what a warp by it leaves, see `cpu.fit`."""
        self._averaged = self._average(self._products(mean, change))
        self._solve()

    def _products(self, mean: Array, change: Array) -> Array:
        """Return the products (N, 5, h, w) of the slopes with each other and with the change."""
        shape = self._count, 5, *self.flow.shape[2:]
        products = self._device.xp.empty(shape, np.float32)
        self._launch("multiply_slopes", mean, change, products, *self._sizes)
        return products

    def _average(self, planes: Array) -> Array:
        flat = planes.reshape(-1, *planes.shape[2:])
        return blur(flat, self._taps, device=self._device).reshape(planes.shape)

    def _solve(self) -> None:
        xp, (height, width) = self._device.xp, self.flow.shape[2:]
        inverse = xp.empty((self._count, 3, height, width), np.float32)
        residual, direction, applied = (xp.empty(self.flow.shape, np.float32) for _ in range(3))
        sums = xp.empty((self._count, self._blocks, 3), np.float64)
        curvatures = xp.empty((self._count, self._blocks), np.float64)
        before, after = (xp.zeros((self._count, 3), np.float64) for _ in range(2))
        self._launch(
            "start_solving",
            self._averaged,
            self.flow,
            inverse,
            residual,
            direction,
            sums,
            *self._sizes,
            self._scale,
        )
        tolerance = np.float64(self._solver.tolerance)
        for number in range(self._solver.max_iterations):
            first = np.int32(number == 0)
            states = before, after, *self._sizes, first, tolerance
            self._launch("turn_direction", inverse, residual, direction, sums, *states)
            sizes = self._sizes
            matrix = self._averaged, direction, applied, curvatures, after
            self._launch("apply_matrix", *matrix, *sizes, self._scale)
            fields = inverse, direction, applied, self.flow, residual
            self._launch("step_along", *fields, curvatures, sums, after, *sizes)
            before, after = after, before

    def confidence(self, first: Array, second: Array) -> Array:
        """Return the confidence (N, h, w) in the flow between two images."""
        mean, change = self._compare(first, second)
        return self.confidence_of_fit(mean, change, self._device.xp.zeros_like(self.flow))

    def confidence_of_fit(self, mean: Array, change: Array, step: Array) -> Array:
        """Return the confidence (N, h, w), see `cpu.confidence`."""
        xp, alpha = self._device.xp, np.float32(self._solver.alpha)
        self._averaged = None  # its memory is needed
        averaged = self._average(self._squares(self._products(mean, change), change, step))
        a, b, c, energy = (averaged[:, k] for k in range(4))
        half = np.float32(0.5) * (a - c)
        least = np.float32(0.5 - ROUNDING) * (a + c) - xp.sqrt(half * half + b * b)
        least = xp.maximum(least, np.float32(0))
        energy = energy + alpha * self._bending()
        share = np.float32(ERROR_OF_ENERGY / self._solver.rho)
        ratio = share * energy / (least + alpha) / np.float32(HALF_SURE**2)
        ratio = ratio + np.float32(UNSEEN) * alpha / xp.maximum(least, _TINY)
        return xp.where(least > 0, np.float32(1) / (np.float32(1) + ratio), np.float32(0))

    def _squares(self, products: Array, change: Array, step: Array) -> Array:
        """Return the squares (N, 4, h, w) of the slopes, and of the change left after a step."""
        xp, two = self._device.xp, np.float32(2)
        xx, xy, yy, xt, yt = (products[:, k] for k in range(5))
        u, v = step[:, 0], step[:, 1]
        squared = change * change + two * (xt * u + yt * v)
        squared += xx * u * u + two * xy * u * v + yy * v * v
        return xp.stack([xx, xy, yy, xp.maximum(squared, np.float32(0))], axis=1)

    def _bending(self) -> Array:
        """Return the square of the flow's gradient (N, h, w)."""
        xp = self._device.xp
        wide = xp.pad(self.flow, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        across = wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]
        down = wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]
        return np.float32(0.25) * (across * across + down * down).sum(axis=1)

    def _launch(self, name: str, *args: Any) -> None:
        kernel = self._device.kernel(SOURCE, name)
        kernel((self._blocks, self._count), (THREADS,), args)


def _flow(
    first: Sequence[Array], second: Sequence[Array], count: int, solver: Solver, device: Device
) -> _Level:
    """Return the finest level with its flow, coarse to fine."""
    flow = device.xp.zeros((count, 2, *first[-1].shape[1:]), np.float32)
    rho = solver.rho / 2 ** (len(first) - 1)
    for previous, following in zip(reversed(first), reversed(second), strict=True):
        if previous is not first[-1]:
            flow, rho = _enlarged(flow, previous.shape[1:], device), 2 * rho
        level = _Level(flow, rho, solver, device)
        level.refine(previous, following)
    return level


def _levels(frames: Frames, part: slice, levels: int, device: Device) -> list[Array]:
    """Return the levels of a part of the batch, (n, h, w), finest first; (1, h, w) of one frame."""
    if isinstance(frames, CLGFrame):
        return [level[None] for level in frames.images]
    return _pyramid(frames[None] if frames.ndim == 2 else frames[part], levels, device)


def _pyramid(images: Array, levels: int, device: Device) -> list[Array]:
    pyramid = [images.astype(np.float32, order="C")]
    count = len(images)
    for size in level_sizes(images.shape, levels)[1:]:
        finer, half = pyramid[-1], device.xp.empty((count, *size), np.float32)
        sizes = (np.int32(n) for n in finer.shape[1:])
        grid = -(-size[0] * size[1] // THREADS), count
        device.kernel(SOURCE, "halve")(grid, (THREADS,), (finer, half, *sizes))
        pyramid.append(half)
    return pyramid


def _enlarged(flow: Array, size: tuple[int, ...], device: Device) -> Array:
    enlarged = device.xp.empty((*flow.shape[:2], *size), np.float32)
    sizes = [np.int32(n) for n in (*flow.shape[2:], *size)]
    blocks = -(-size[0] * size[1] // THREADS)
    planes = flow.reshape(-1, *flow.shape[2:]), enlarged.reshape(-1, *size)
    for start in range(0, len(planes[0]), _MOST_PLANES):
        source, target = (of[start : start + _MOST_PLANES] for of in planes)
        grid = blocks, len(source)
        device.kernel(SOURCE, "enlarge")(grid, (THREADS,), (source, target, *sizes))
    return enlarged


class DeviceSteps:
    """The steps of `sequence` for the frames of one clip on the device.

    Two numbers a frame come down for each fit of the amplitudes.
    """

    def __init__(
        self,
        frames: Array,
        chosen: NDArray[np.intp],
        levels: int,
        solver: Solver,
        *,
        device: Device,
    ) -> None:
        xp = device.xp
        picked = xp.take(frames, xp.asarray(chosen), axis=0)
        self._frames = xp.ascontiguousarray(picked, dtype=np.float32)
        self._levels, self._solver, self._device = levels, solver, device
        self._shape = frames.shape[1:]
        self._sizes = tuple(np.int32(n) for n in self._shape)
        self._grid = -(-self._shape[0] * self._shape[1] // THREADS), len(chosen)
        self._outlier_taps = xp.asarray(gaussian_taps(OUTLIER_RHO))

    def begin(self, still: NDArray[np.intp], moved: NDArray[np.intp]) -> None:
        first, second = (self._mean(numbers) for numbers in (still, moved))
        solver = self._solver.smoother(FIRST_SMOOTHNESS)
        before, after = (_pyramid(image, self._levels, self._device) for image in (first, second))
        self._level = level = _flow(before, after, 1, solver, self._device)
        self._sure = partial(level.confidence, before[0], after[0])
        self._reference = first[0]

    def _mean(self, numbers: NDArray[np.intp]) -> Array:
        xp = self._device.xp
        return xp.take(self._frames, xp.asarray(numbers), axis=0).mean(axis=0)[None]

    def compare(self, amplitudes: Doubles) -> tuple[Doubles, float, Doubles]:
        xp, to_host = self._device.xp, self._device.to_host
        slope = xp.empty(self._shape, np.float32)
        arrays = self._reference, self._level.flow, slope
        grid = self._grid[0], 1
        self._device.kernel(SOURCE, "slope_along")(grid, (THREADS,), (*arrays, *self._sizes))
        residuals = self._moved(self._level.flow, amplitudes) - self._reference
        mixed = (residuals * slope).sum(axis=(1, 2), dtype=np.float64)
        squared = float(to_host((slope * slope).sum(dtype=np.float64)))
        sampled = abs(residuals[:, ::SAMPLING, ::SAMPLING]).reshape(len(amplitudes), -1)
        middle = sampled.shape[1] // 2
        medians = xp.partition(sampled, middle, axis=1)[:, middle]
        return to_host(mixed), squared, to_host(medians).astype(np.float64)

    def _moved(self, flow: Array, amplitudes: Doubles) -> Array:
        """Return the frames moved by the flow (1, 2, H, W) times their amplitudes."""
        xp = self._device.xp
        moved = xp.empty(self._frames.shape, np.float32)
        arrays = self._frames, flow, xp.asarray(amplitudes.astype(np.float32)), moved
        kernel = self._device.kernel(SOURCE, "move_frames")
        kernel(self._grid, (THREADS,), (*arrays, *self._sizes))
        return moved

    def correct(self, scale: float, amplitudes: Doubles, still: Doubles, moved: Doubles) -> None:
        xp = self._device.xp
        flow = self._level.flow * np.float32(scale)
        still_, moved_ = (xp.asarray(values.astype(np.float32)) for values in (still, moved))
        warped = self._moved(flow, amplitudes)
        weights = self._weights(warped)
        shares = weights * still_[:, None, None]
        reference = (shares * warped).sum(axis=0) / (shares.sum(axis=0) + _TINY)
        shares = weights * moved_[:, None, None]
        change = (shares * (warped - reference)).sum(axis=0)
        change = change / ((shares * moved_[:, None, None]).sum(axis=0) + _TINY)
        self._reference = xp.ascontiguousarray(reference, dtype=np.float32)
        change = xp.ascontiguousarray(change, dtype=np.float32)
        mean = self._reference + np.float32(0.5) * change
        fitted = mean[None], change[None]
        self._level = level = _Level(flow, self._solver.rho, self._solver, self._device)
        before = flow.copy()
        level.fit(*fitted)
        self._sure = partial(level.confidence_of_fit, *fitted, level.flow - before)

    def _weights(self, warped: Array) -> Array:
        xp = self._device.xp
        middle = len(warped) // 2
        difference = abs(warped - xp.partition(warped, middle, axis=0)[middle])
        far = blur(difference, self._outlier_taps, device=self._device)
        far = far * np.float32(1 / OUTLIER_LEVELS)
        far = far * far
        return np.float32(1) / (far * far + np.float32(1))

    def result(self, amplitudes: Floats, confidence: bool) -> CLGSequence:
        xp = self._device.xp
        flow = xp.ascontiguousarray(xp.moveaxis(self._level.flow[0], 0, -1))
        sure = self._sure()[0] if confidence else None
        return CLGSequence(flow, xp.asarray(amplitudes), sure)
