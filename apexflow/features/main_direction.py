"""MDMO: main directional mean optical flow of regions of the face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from apexflow.features.oriented_flow import places, turns
from apexflow.features.parts import Parts
from apexflow.kernels._validate import check_array, check_integer, check_number

Box = tuple[float, float, float, float]

# As `apexflow.engine.regions` places them.
REGIONS = ("eyes", "eyebrows", "mouth", "nose", "cheeks", "chin", "forehead")
_SIDES = ("left", "right")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mdmo:
    """The options of `mdmo`, and the regions that are taken of a face.

    Attributes
    ----------
    regions : tuple of str
        Each is cut at its middle into a left and a right half, as seen in the image.
    bins : int
    weight : float
    """

    reads: ClassVar[Literal["regions"]] = "regions"

    regions: tuple[str, ...] = REGIONS
    bins: int = 8
    weight: float = 0.5

    def __post_init__(self) -> None:
        given: Any = self.regions
        regions = (given,) if isinstance(given, str) else tuple(given)
        if not regions or len(set(regions)) < len(regions) or not set(regions) <= set(REGIONS):
            raise ValueError(
                f"regions must be some of {', '.join(REGIONS)}, each once. Got {self.regions!r}."
            )
        object.__setattr__(self, "regions", regions)
        object.__setattr__(self, "bins", check_integer("bins", self.bins, minimum=2, maximum=64))
        weight = check_number("weight", self.weight, above=0, below=1)
        object.__setattr__(self, "weight", weight)

    @property
    def parts(self) -> Parts:
        halves = [f"{side} {region}" for region in self.regions for side in _SIDES]
        return Parts.of(number=("length", "direction"), region=halves)

    def __call__(self, flow: Any, boxes: Sequence[Box]) -> NDArray[np.float32]:
        halves = [half for box in boxes for half in _halves(box)]
        return mdmo(flow, boxes=halves, bins=self.bins, weight=self.weight)


def mdmo(
    flow: NDArray[np.float32], *, boxes: Sequence[Box], bins: int = 8, weight: float = 0.5
) -> NDArray[np.float32]:
    """Return the main directional mean optical flow of regions.

    In each region the vectors are sorted into bins by their direction, and the mean of the fullest
    bin is the region's motion, which a few wrong vectors do not change. These are averaged over
    the flows; of the averages the lengths, in parts of the longest, are multiplied by ``weight``
    and the directions by 1 - ``weight`` [1]_.

    Parameters
    ----------
    flow : (H, W, 2) or (N, H, W, 2) float32
        Displacement (x, y) in pixels: one, or all of a clip's.
    boxes : sequence of (x0, y0, x1, y1)
        In pixels of the flow, rounded to whole ones; the source has 36 regions by 66 landmarks.
    bins : int
        2 to 64, from 0 degrees (right), by 90 (down), to 360. Of equally full ones the first.
    weight : float
        Of lengths against directions, between 0 and 1; without effect where features are
        brought to one deviation afterwards.

    Returns
    -------
    (2 R,) float32
        The lengths of all regions, then their directions in radians, 0 to 2 pi; both 0 where
        nothing moves.

    Raises
    ------
    ValueError
        An argument has a wrong shape, dtype or value; the flow is not finite; a box has no pixel.

    References
    ----------
    .. [1] Y.-J. Liu et al., "A main directional mean optical flow feature for spontaneous
       micro-expression recognition", IEEE Transactions on Affective Computing 7(4), 2016.
       DOI 10.1109/TAFFC.2015.2485205

    Examples
    --------
    >>> import numpy as np
    >>> flow = np.zeros((8, 8, 2), np.float32)
    >>> flow[:, 4:] = (0, 2)
    >>> mdmo(flow, boxes=[(0, 0, 4, 8), (4, 0, 8, 8)]).astype(float).round(3).tolist()
    [0.0, 0.5, 0.0, 0.785]
    """
    flow = check_array("flow", flow, dtypes=("float32",), ndim=(3, 4))
    if flow.shape[-1] != 2:
        raise ValueError(f"flow must hold (x, y) in its last dimension. Got shape {flow.shape}.")
    bins = check_integer("bins", bins, minimum=2, maximum=64)
    weight = check_number("weight", weight, above=0, below=1)
    if not len(boxes):
        raise ValueError("boxes must name one region at least. Got none.")
    height, width = flow.shape[-3:-1]
    flows = flow.reshape(-1, height, width, 2).astype(np.float64)
    regions = [_slices(box, height, width) for box in boxes]
    motions = [[_main(one[rows, columns], bins) for rows, columns in regions] for one in flows]
    mean = np.mean(motions, axis=0)
    lengths = np.hypot(mean[:, 0], mean[:, 1])
    directions = turns(mean) * 2 * np.pi
    longest = lengths.max()
    parts = lengths / longest if longest > 0 else lengths
    return np.concatenate([weight * parts, (1 - weight) * directions]).astype(np.float32)


def _main(flow: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Return the mean of the vectors in the fullest bin; what does not move is in none."""
    vectors = flow.reshape(-1, 2)
    moving = vectors[vectors.any(axis=1)]
    if not len(moving):
        return np.zeros(2)
    at = places(turns(moving), bins)
    fullest = np.bincount(at, minlength=bins).argmax()
    mean: NDArray[np.float64] = moving[at == fullest].mean(axis=0)
    return mean


def _halves(box: Box) -> tuple[Box, Box]:
    x0, y0, x1, y1 = box
    middle = (x0 + x1) / 2
    return (x0, y0, middle, y1), (middle, y0, x1, y1)


def _slices(box: Box, height: int, width: int) -> tuple[slice, slice]:
    x0, y0, x1, y1 = (round(float(value)) for value in box)
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if x0 >= x1 or y0 >= y1:
        raise ValueError(
            f"boxes must each hold a pixel of the flow, {height}x{width}. Got {tuple(box)}."
        )
    return slice(y0, y1), slice(x0, x1)
