"""The blocks of a template, prepared to be measured in many images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.register.blocks import measure_blocks, prepare_blocks
from apexflow.kernels.register.robust import FALLING, fit_motion

Floats = NDArray[np.float64]

# Measured on 150 frames of moving, expressive synthetic faces with noise and JPEG (RMS of the
# shift): 32 px blocks .011 px, 24 px .013, 16 px .016; larger blocks gain nothing. Three steps
# converge from a whole pixel off; the fit needs 4 rounds of each kind.
_SIDE = 32
_LEAST_SIDE = 8
_BLOCKS_ACROSS = 6
# More blocks hold a face no stiller: of 221, every other one gave .011 px for .010, in half the
# time.
_MOST_BLOCKS = 128
STEPS = 3
# px, of the rim: what a further step would change is then below a hundredth of a pixel.
SETTLED = 0.04
ROUNDS = 4
# A block whose gradients are no stronger than sensor noise (2 gray levels) fixes nothing.
_LEAST_STRENGTH = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """The prepared blocks of a template."""

    centres: Floats
    weights: Floats
    patterns: NDArray[np.float32]
    inverses: Floats
    radius: float

    @classmethod
    def of(cls, template: NDArray[np.uint8]) -> Blocks:
        height, width = template.shape
        side = min(_SIDE, max(_LEAST_SIDE, min(height, width) // _BLOCKS_ACROSS))
        tops, lefts = _spread(_corners(height, side), _corners(width, side))
        count = tops.size
        patterns = np.empty((count, 3, side, side), np.float32)
        inverses, strengths = np.empty((count, 3)), np.empty(count)
        prepare_blocks(template.astype(np.float32), tops, lefts, patterns, inverses, strengths)
        middle = np.array([width - 1, height - 1]) / 2
        centres = np.stack([lefts, tops], axis=1) + (side - 1) / 2 - middle
        strong = strengths > _LEAST_STRENGTH * side * side
        # The error of a block's step falls with the root of its gradients' energy.
        weights = np.where(strong, np.sqrt(np.maximum(strengths, 0)), 0.0)
        return cls(centres, weights, patterns, inverses, float(np.abs(centres).max()))

    def refine(
        self, image: NDArray[np.uint8], matrix: Floats, *, similarity: bool, falling: bool
    ) -> None:
        """Bring the matrix to where the blocks find themselves."""
        reaches = np.array(FALLING if falling else ())
        steps, seen = np.zeros_like(self.centres), np.empty(len(self.centres), np.bool_)
        for _ in range(STEPS):
            measure_blocks(image, self.patterns, self.inverses, self.centres, matrix, steps, seen)
            p = fit_motion(self.centres, steps, self.weights * seen, similarity, ROUNDS, reaches)
            matrix += [[p[2], -p[3], p[0]], [p[3], p[2], p[1]]]
            if max(abs(p[0]), abs(p[1])) + self.radius * (abs(p[2]) + abs(p[3])) < SETTLED:
                return


def _corners(length: int, side: int) -> NDArray[np.int64]:
    """Return where adjoining blocks begin, a pixel inside a template at least, and centred."""
    count = max((length - 2) // side, 1)
    return (length - count * side) // 2 + side * np.arange(count)


def _spread(
    tops: NDArray[np.int64], lefts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the upper and left sides of blocks all over a grid, as on a chessboard when many."""
    rows, columns = np.indices((tops.size, lefts.size))
    chosen = (rows + columns) % math.ceil(rows.size / _MOST_BLOCKS) == 0
    return tops[rows[chosen]], lefts[columns[chosen]]
