"""HOG-TOP: histograms of oriented gradients on three orthogonal planes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from apexflow.features.blocks import Blocks, block_of, check_blocks, check_room, normalized
from apexflow.features.parts import Parts
from apexflow.kernels._validate import check_array, check_integer
from apexflow.kernels.compiled import njit

_PLANES = ("xy", "xt", "yt")


@dataclass(frozen=True, slots=True, kw_only=True)
class HogTop:
    """The options of `hog_top`, which see.

    Attributes
    ----------
    blocks : (rows, columns)
    bins : int
    """

    reads: ClassVar[Literal["frames"]] = "frames"

    blocks: tuple[int, int] = (5, 5)
    bins: int = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "blocks", check_blocks(self.blocks))
        object.__setattr__(self, "bins", check_integer("bins", self.bins, minimum=2, maximum=64))

    @property
    def parts(self) -> Parts:
        rows, columns = self.blocks
        bins = [f"{180 * i / self.bins:g}°" for i in range(self.bins)]
        return Parts.of(row=rows, column=columns, plane=_PLANES, gradient=bins)

    def __call__(self, frames: Any) -> NDArray[np.float32]:
        frames = check_array("frames", frames, dtypes=("uint8", "float32"), ndim=(3,))
        if min(frames.shape) < 3:
            raise ValueError(
                "frames must have at least 3 frames, rows and columns, or there is no gradient "
                f"within. Got shape {frames.shape}."
            )
        height, width = frames.shape[1:]
        check_room(self.blocks, height, width)
        sums = np.zeros((*self.blocks, len(_PLANES), self.bins))
        rows, columns = block_of(height, self.blocks[0]), block_of(width, self.blocks[1])
        _add(np.require(frames, np.float32, "C"), rows, columns, sums)
        return normalized(sums).ravel().astype(np.float32)


def hog_top(frames: NDArray[Any], *, blocks: Blocks = (5, 5), bins: int = 8) -> NDArray[np.float32]:
    """Return the HOG-TOP histograms of a clip.

    In each of the planes XY, XT and YT a voxel's gradient (central differences, 0 at the
    border) adds its length to the bin of its orientation, 0 to 180 degrees without a sign; each
    block has a histogram a plane, with a sum of 1 [1]_. An edge that moves slants in XT or YT,
    one way or the other by where it moves.

    Gradients and bins are those of scikit-image's ``hog`` on each plane, with t the rows of XT and
    YT; it is a plane's histogram over all its slices that is normalised.

    Parameters
    ----------
    frames : (T, H, W) uint8 or float32
        Aligned gray frames, at least 3 along each axis.
    blocks : int or (rows, columns)
        1 to 64.
    bins : int
        2 to 64.

    Returns
    -------
    (D,) float32
        In the order of `HogTop.parts`: row and column of the block, plane, bin. 0 throughout
        where a block has no gradient.

    Raises
    ------
    ValueError
        An argument has a wrong shape, dtype or value.

    References
    ----------
    .. [1] X. Li et al., "Towards reading hidden emotions: a comparative study of spontaneous
       micro-expression spotting and recognition methods", IEEE Transactions on Affective
       Computing 9(4), 2018. DOI 10.1109/TAFFC.2017.2667642

    Examples
    --------
    >>> import numpy as np
    >>> clip = np.random.default_rng(0).integers(0, 256, (12, 40, 40), np.uint8)
    >>> hog_top(clip).shape
    (600,)
    """
    return HogTop(blocks=blocks, bins=bins)(frames)  # type: ignore[arg-type]


@njit
def _add(frames, rows, columns, sums):  # type: ignore[no-untyped-def]
    """Add the length of every gradient to ``sums`` (row, column, plane, bin)."""
    count, height, width = frames.shape
    for t in range(count):
        for y in range(height):
            here = sums[rows[y]]
            for x in range(width):
                gx = gy = gt = 0.0
                if 0 < x < width - 1:
                    gx = np.float64(frames[t, y, x + 1]) - np.float64(frames[t, y, x - 1])
                if 0 < y < height - 1:
                    gy = np.float64(frames[t, y + 1, x]) - np.float64(frames[t, y - 1, x])
                if 0 < t < count - 1:
                    gt = np.float64(frames[t + 1, y, x]) - np.float64(frames[t - 1, y, x])
                block = here[columns[x]]
                _vote(gy, gx, block[0])
                _vote(gt, gx, block[1])
                _vote(gt, gy, block[2])


@njit
def _vote(down, across, histogram):  # type: ignore[no-untyped-def]
    if down == 0 and across == 0:
        return
    degrees = np.rad2deg(np.arctan2(down, across)) % 180
    # What lies below 0 by rounding is 180 afterwards.
    place = min(int(degrees * len(histogram) / 180), len(histogram) - 1)
    histogram[place] += np.hypot(down, across)
