"""HOOF and Bi-WOOF: histograms of where flow points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from apexflow.features.blocks import Blocks, block_of, check_blocks, check_room, normalized
from apexflow.features.parts import Parts
from apexflow.kernels._validate import check_array, check_integer
from apexflow.kernels.encode.strain import optical_strain

_TURN = 2 * np.pi


@dataclass(frozen=True, slots=True, kw_only=True)
class Hoof:
    """The options of `hoof`, which see.

    Attributes
    ----------
    blocks : (rows, columns)
    bins : int
    symmetric : bool
    """

    reads: ClassVar[Literal["flow"]] = "flow"

    blocks: tuple[int, int] = (5, 5)
    bins: int = 8
    symmetric: bool = True

    def __post_init__(self) -> None:
        _check(self)
        if not isinstance(self.symmetric, bool):
            raise ValueError(f"symmetric must be true or false. Got {self.symmetric!r}.")

    @property
    def parts(self) -> Parts:
        first, whole = (-90, 180) if self.symmetric else (0, 360)
        bins = [f"{first + whole * i / self.bins:g}°" for i in range(self.bins)]
        return Parts.of(row=self.blocks[0], column=self.blocks[1], direction=bins)

    def __call__(self, flow: Any) -> NDArray[np.float32]:
        flow = check_one_flow(flow)
        if self.symmetric:
            across = np.abs(flow[..., 0])
            parts = np.arctan2(flow[..., 1], across) / np.pi + 0.5
        else:
            parts = turns(flow)
        found = _histograms(parts, np.hypot(flow[..., 0], flow[..., 1]), self.blocks, self.bins)
        return normalized(found).ravel().astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class BiWoof:
    """The options of `bi_woof`, which see.

    Attributes
    ----------
    blocks : (rows, columns)
    bins : int
    """

    reads: ClassVar[Literal["flow"]] = "flow"

    blocks: tuple[int, int] = (5, 5)
    bins: int = 8

    def __post_init__(self) -> None:
        _check(self)

    @property
    def parts(self) -> Parts:
        bins = [f"{360 * i / self.bins:g}°" for i in range(self.bins)]
        return Parts.of(row=self.blocks[0], column=self.blocks[1], direction=bins)

    def __call__(self, flow: Any) -> NDArray[np.float32]:
        checked = check_one_flow(flow)
        length = np.hypot(checked[..., 0], checked[..., 1])
        strain = optical_strain(checked.astype(np.float32)).astype(np.float64)
        size = _histograms(np.zeros_like(length), np.ones_like(length), self.blocks, 1)
        deformed = _histograms(np.zeros_like(length), strain, self.blocks, 1)
        moved = _histograms(turns(checked), length, self.blocks, self.bins)
        return (moved / size * (deformed / size)).ravel().astype(np.float32)


def hoof(
    flow: NDArray[np.float32],
    *,
    blocks: Blocks = (5, 5),
    bins: int = 8,
    symmetric: bool = True,
) -> NDArray[np.float32]:
    """Return histograms of oriented optical flow, one a block, each with a sum of 1.

    Each vector adds its length to the bin of its direction, so that noise counts little, and the
    size of a motion not at all [1]_.

    Parameters
    ----------
    flow : (H, W, 2) float32
        Displacement (x, y) in pixels.
    blocks : int or (rows, columns)
        1 to 64; 1 is the histogram of the whole image, as in the source.
    bins : int
        2 to 64.
    symmetric : bool
        As in the source: directions -90 to 90 degrees by (|x|, y), so that left and right are the
        same. False takes the whole circle from 0 degrees (right), by 90 (down), to 360.

    Returns
    -------
    (D,) float32
        In the order of `Hoof.parts`: row and column of the block, bin. 0 throughout where nothing
        moves.

    Raises
    ------
    ValueError
        An argument has a wrong shape, dtype or value; the flow is not finite.

    References
    ----------
    .. [1] R. Chaudhry, A. Ravichandran, G. Hager, R. Vidal, "Histograms of oriented optical flow
       and Binet-Cauchy kernels on nonlinear dynamical systems for the recognition of human
       actions", CVPR 2009. DOI 10.1109/CVPR.2009.5206821

    Examples
    --------
    >>> import numpy as np
    >>> hoof(np.full((8, 8, 2), (0, -1), np.float32), blocks=1, bins=4).tolist()
    [1.0, 0.0, 0.0, 0.0]
    """
    return Hoof(blocks=blocks, bins=bins, symmetric=symmetric)(flow)  # type: ignore[arg-type]


def bi_woof(
    flow: NDArray[np.float32], *, blocks: Blocks = (5, 5), bins: int = 8
) -> NDArray[np.float32]:
    """Return bi-weighted oriented optical flow: directions weighed by motion and by strain.

    Each vector adds its length to the bin of its direction (the local weight); the histogram of a
    block, in the mean over its pixels, is multiplied by the block's mean optical strain (the
    global weight) [1]_. In px of flow; made for the flow from onset to apex.

    Parameters
    ----------
    flow : (H, W, 2) float32
        Displacement (x, y) in pixels, at least 2x2.
    blocks : int or (rows, columns)
        1 to 64.
    bins : int
        2 to 64, from 0 degrees (right), by 90 (down), to 360.

    Returns
    -------
    (D,) float32
        In the order of `BiWoof.parts`: row and column of the block, bin. 0 where nothing moves,
        and where everything moves as one.

    Raises
    ------
    ValueError
        An argument has a wrong shape, dtype or value; the flow is not finite.

    References
    ----------
    .. [1] S.-T. Liong, J. See, K. Wong, R. C.-W. Phan, "Less is more: micro-expression recognition
       from video using apex frame", Signal Processing: Image Communication 62, 2018.
       DOI 10.1016/j.image.2017.11.006

    Examples
    --------
    >>> import numpy as np
    >>> y, x = np.mgrid[:8, :8].astype(np.float32)
    >>> bi_woof(np.stack([0 * x, 0.5 * y], axis=-1), blocks=1, bins=4).tolist()
    [0.0, 0.875, 0.0, 0.0]
    """
    return BiWoof(blocks=blocks, bins=bins)(flow)  # type: ignore[arg-type]


def check_one_flow(flow: Any) -> NDArray[np.float64]:
    """Return one flow (H, W, 2) as float64: directions are binned as they are, not rounded."""
    found = check_array("flow", flow, dtypes=("float32",), ndim=(3,))
    if found.shape[-1] != 2:
        raise ValueError(f"flow must be (H, W, 2), (x, y) last. Got shape {found.shape}.")
    return found.astype(np.float64)


def turns(flow: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return directions in parts of a whole turn, 0 to 1, from x towards y."""
    return np.arctan2(flow[..., 1], flow[..., 0]) / _TURN % 1


def places(parts: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Return the bin of each part of the whole; 1 itself, by rounding, is in the last."""
    return np.minimum((parts * bins).astype(np.int64), bins - 1)


def _histograms(
    parts: NDArray[np.float64], weights: NDArray[np.float64], blocks: tuple[int, int], bins: int
) -> NDArray[np.float64]:
    """Return the sums of weights (row, column, bin) of an image's pixels."""
    height, width = parts.shape
    check_room(blocks, height, width)
    rows, columns = block_of(height, blocks[0]), block_of(width, blocks[1])
    at = (rows[:, None] * blocks[1] + columns) * bins + places(parts, bins)
    sums = np.bincount(at.ravel(), weights.ravel(), minlength=blocks[0] * blocks[1] * bins)
    return sums.reshape(*blocks, bins).astype(np.float64)


def _check(options: Any) -> None:
    object.__setattr__(options, "blocks", check_blocks(options.blocks))
    bins = check_integer("bins", options.bins, minimum=2, maximum=64)
    object.__setattr__(options, "bins", bins)
