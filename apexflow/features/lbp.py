"""LBP-TOP: local binary patterns on three orthogonal planes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from apexflow.features.blocks import (
    Blocks,
    block_of,
    check_blocks,
    check_room,
    normalized,
    several,
)
from apexflow.features.parts import Parts
from apexflow.kernels._validate import check_array
from apexflow.kernels.compiled import njit

_PLANES = ("xy", "xt", "yt")
# A label for each of 2^16 codes: half a megabyte.
_MOST_NEIGHBOURS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LbpTop:
    """The options of `lbp_top`, which see.

    Attributes
    ----------
    blocks : (rows, columns)
    radii : (x, y, t)
    neighbours : (xy, xt, yt)
    """

    reads: ClassVar[Literal["frames"]] = "frames"

    blocks: tuple[int, int] = (5, 5)
    radii: tuple[int, int, int] = (1, 1, 4)
    neighbours: tuple[int, int, int] = (8, 8, 8)

    def __post_init__(self) -> None:
        _set(self, "blocks", check_blocks(self.blocks))
        _set(self, "radii", several("radii", self.radii, 3, minimum=1, maximum=64))
        most = _MOST_NEIGHBOURS
        _set(self, "neighbours", several("neighbours", self.neighbours, 3, minimum=4, maximum=most))

    @property
    def parts(self) -> Parts:
        patterns = [
            f"{plane} {label}"
            for plane, count in zip(_PLANES, self.neighbours, strict=True)
            for label in range(_pattern_count(count))
        ]
        return Parts.of(row=self.blocks[0], column=self.blocks[1], pattern=patterns)

    def __call__(self, frames: Any) -> NDArray[np.float32]:
        frames = check_array("frames", frames, dtypes=("uint8", "float32"), ndim=(3,))
        for name, size, radius in zip("xyt", frames.shape[::-1], self.radii, strict=True):
            if size < 2 * radius + 1:
                what = {"x": "columns", "y": "rows", "t": "frames"}[name]
                raise ValueError(
                    f"frames must have at least {2 * radius + 1} {what} for the radius {radius} "
                    f"along {name}. Got {size}."
                )
        height, width = frames.shape[1:]
        rx, ry, _ = self.radii
        inside = height - 2 * ry, width - 2 * rx
        check_room(self.blocks, *inside)
        counts = np.zeros((*self.blocks, sum(map(_pattern_count, self.neighbours))), np.int64)
        rows = block_of(inside[0], self.blocks[0])
        columns = block_of(inside[1], self.blocks[1])
        volume = np.require(frames, np.float32, "C")
        first = 0
        for axes, neighbours in zip(((1, 2), (0, 2), (0, 1)), self.neighbours, strict=True):
            steps = _steps(neighbours, axes, self.radii)
            corners, parts = _corners(steps, axes), _parts(steps, axes, volume.shape)
            labels = uniform_labels(neighbours)
            part = counts[:, :, first : first + _pattern_count(neighbours)]
            places = (*axes, corners, *parts)
            _count(volume, np.array(self.radii), *places, labels, rows, columns, part)
            first += part.shape[2]
        return self._normalized(counts)

    def _normalized(self, counts: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return each plane's histogram of each block with a sum of 1."""
        ends = np.cumsum([_pattern_count(count) for count in self.neighbours])[:-1]
        planes = [normalized(part) for part in np.split(counts, ends, axis=-1)]
        return np.concatenate(planes, axis=-1).ravel().astype(np.float32)


def lbp_top(
    frames: NDArray[Any],
    *,
    blocks: Blocks = (5, 5),
    radii: int | tuple[int, int, int] = (1, 1, 4),
    neighbours: int | tuple[int, int, int] = (8, 8, 8),
) -> NDArray[np.float32]:
    """Return the LBP-TOP histograms of a clip.

    Each voxel is compared with its neighbours on an ellipse in the planes XY (how it looks), XT
    and YT (how it moves along rows and along columns); neighbours between pixels are bilinear [1]_.
    A histogram counts the uniform patterns (at most two changes around the ellipse), each by its
    own label, and all others together: P (P - 1) + 3 labels, 59 of 8 neighbours. Voxels that
    lack a neighbour in any plane are left out; what is left is cut into blocks, of which each
    plane has a histogram with a sum of 1.

    Labels and interpolation are those of scikit-image's ``local_binary_pattern(image, P, R,
    method="nri_uniform")`` on each plane, with t the rows of XT and YT.

    Parameters
    ----------
    frames : (T, H, W) uint8 or float
        Aligned gray frames, at least 2 R + 1 along each axis. Differences of rounding decide
        the patterns of floats where neighbours are equal: bytes are the better input.
    blocks : int or (rows, columns)
        1 to 64.
    radii : int or (x, y, t)
        In pixels and frames, 1 to 64.
    neighbours : int or (xy, xt, yt)
        4 to 16.

    Returns
    -------
    (D,) float32
        In the order of `LbpTop.parts`: row and column of the block, plane, label. D is 4425 of
        5x5 blocks and 8 neighbours.

    Raises
    ------
    ValueError
        An argument has a wrong shape, dtype or value, or there are too few frames or pixels.

    References
    ----------
    .. [1] G. Zhao, M. Pietikäinen, "Dynamic texture recognition using local binary patterns with
       an application to facial expressions", IEEE TPAMI 29(6), 2007.
       DOI 10.1109/TPAMI.2007.1110

    Examples
    --------
    >>> import numpy as np
    >>> clip = np.random.default_rng(0).integers(0, 256, (12, 40, 40), np.uint8)
    >>> lbp_top(clip, blocks=5, radii=(1, 1, 4)).shape
    (4425,)
    """
    return LbpTop(blocks=blocks, radii=radii, neighbours=neighbours)(frames)  # type: ignore[arg-type]


@lru_cache
def uniform_labels(neighbours: int) -> NDArray[np.int64]:
    """Return the label of each code of so many bits, as scikit-image's "nri_uniform" numbers them.

    0 is no bit, then come runs of 1, 2, … bits, each in the order of its first bit (0, P - 1, …,
    1), then all bits, and last what has more than two changes.
    """
    most = neighbours * (neighbours - 1) + 2
    labels = np.full(1 << neighbours, most)
    labels[0], labels[-1] = 0, most - 1
    for length in range(1, neighbours):
        for first in range(neighbours):
            code = sum(1 << (first + i) % neighbours for i in range(length))
            labels[code] = 1 + (length - 1) * neighbours + -first % neighbours
    labels.flags.writeable = False
    return labels


def _pattern_count(neighbours: int) -> int:
    return neighbours * (neighbours - 1) + 3


def _steps(
    count: int, axes: tuple[int, int], radii: tuple[int, int, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return how far the neighbours lie along the axes that are a plane's rows and columns.

    Of the axes (t, y, x) of the volume; ``radii`` are along (x, y, t).
    """
    angles = 2 * np.pi * np.arange(count) / count
    by_axis = radii[::-1]
    # Five digits, as scikit-image has them: what should be a pixel is one.
    row = np.round(-by_axis[axes[0]] * np.sin(angles), 5)
    return row, np.round(by_axis[axes[1]] * np.cos(angles), 5)


def _corners(
    steps: tuple[NDArray[np.float64], NDArray[np.float64]], axes: tuple[int, int]
) -> NDArray[np.int64]:
    """Return the four voxels around each neighbour, as offsets: (neighbour, 4, 3) along (t, y, x).

    Top left, top right, bottom left and bottom right in the plane.
    """
    row, column = steps
    offsets = np.zeros((len(row), 4, 3), np.int64)
    sides = ((np.floor, np.floor), (np.floor, np.ceil), (np.ceil, np.floor), (np.ceil, np.ceil))
    for i, (of_row, of_column) in enumerate(sides):
        offsets[:, i, axes[0]] = of_row(row)
        offsets[:, i, axes[1]] = of_column(column)
    return offsets


def _parts(
    steps: tuple[NDArray[np.float64], NDArray[np.float64]],
    axes: tuple[int, int],
    shape: tuple[int, ...],
) -> list[NDArray[np.float64]]:
    """Return the parts of the way between voxels, down and across: (neighbour, place) each.

    By the place itself, as scikit-image has them: their last digits decide where the neighbour is
    as bright as the centre.
    """
    places = [
        step[:, None] + np.arange(shape[axis]) for step, axis in zip(steps, axes, strict=True)
    ]
    return [place - np.floor(place) for place in places]


@njit
def _count(  # type: ignore[no-untyped-def]
    volume, radii, row_axis, column_axis, corners, down, across, labels, rows, columns, counts
):
    """Add the labels of all voxels that have all neighbours to ``counts`` (row, column, label)."""
    frames, height, width = volume.shape
    rx, ry, rt = radii
    inside = width - 2 * rx
    codes = np.empty(inside, np.int32)
    parts = np.empty(inside)
    for t in range(rt, frames - rt):
        for y in range(ry, height - ry):
            codes[:] = 0
            centre = volume[t, y, rx:]
            for p in range(len(corners)):
                bit, row = np.int32(1 << p), y if row_axis == 1 else t
                if column_axis == 2:
                    parts[:] = across[p, rx : rx + inside]
                else:
                    parts[:] = across[p, y]
                _compare(volume, t, y, rx, corners[p], down[p, row], parts, centre, bit, codes)
            here = counts[rows[y - ry]]
            for x in range(inside):
                here[columns[x], labels[codes[x]]] += 1


@njit
def _compare(  # type: ignore[no-untyped-def]
    volume, t, y, rx, corners, down, across, centre, bit, codes
):
    """Set a bit of a row's codes where the neighbour is at least as bright as the centre."""
    n = len(codes)
    first, second, third, last = corners[0], corners[1], corners[2], corners[3]
    a = volume[t + first[0], y + first[1], rx + first[2] :]
    if (first == last).all():
        for x in range(n):
            codes[x] |= bit if a[x] >= centre[x] else np.int32(0)
        return
    b = volume[t + second[0], y + second[1], rx + second[2] :]
    c = volume[t + third[0], y + third[1], rx + third[2] :]
    d = volume[t + last[0], y + last[1], rx + last[2] :]
    for x in range(n):
        # In float64, and in scikit-image's order: ties are decided by the last bit.
        above = (1 - across[x]) * np.float64(a[x]) + across[x] * np.float64(b[x])
        below = (1 - across[x]) * np.float64(c[x]) + across[x] * np.float64(d[x])
        value = (1 - down) * above + down * below
        codes[x] |= bit if value - centre[x] >= 0 else np.int32(0)


def _set(options: Any, name: str, value: Any) -> None:
    object.__setattr__(options, name, value)
