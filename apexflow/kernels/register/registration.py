"""Where a template lies in an image, to a small part of a pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.kernels._validate import check_array, check_choice, check_number
from apexflow.kernels.register.blocks import measure_blocks, prepare_blocks
from apexflow.kernels.register.robust import fit_motion

Floats = NDArray[np.float64]

MINIMUM_SIZE = 16
"""Fewest pixels a side of a template."""

# Measured on 150 frames of moving, expressive synthetic faces with noise and JPEG (RMS of the
# shift): 32 px blocks .011 px, 24 px .013, 16 px .016; larger blocks gain nothing. Three steps
# converge from a whole pixel off; the fit needs 4 rounds of each kind.
_SIDE = 32
_LEAST_SIDE = 8
_BLOCKS_ACROSS = 6
_STEPS = 3
# px, of the rim: what a further step would change is then below a hundredth of a pixel.
_SETTLED = 0.04
_ROUNDS = 4
# A block whose gradients are no stronger than sensor noise (2 gray levels) fixes nothing.
_LEAST_STRENGTH = 1.0
# Rotation and scale move the rim by more than a block can follow: they are found on a reduced
# image first, as long as it keeps this many pixels a side.
_REDUCTION = 4
_REDUCED_SIDE = 64


class Placement(NamedTuple):
    """How a template lies in an image.

    Attributes
    ----------
    x, y : float
        The middle of the template, in pixels of the image; the middle of its first pixel is
        (0, 0).
    rotation : float
        Degrees, clockwise as seen.
    scale : float
        Enlargement.
    """

    x: float
    y: float
    rotation: float = 0.0
    scale: float = 1.0


class Registration:
    """One template, prepared to be located in many images.

    The template is divided into blocks, each of which finds its own way; the motion that most
    of them agree on is the template's. A face whose mouth moves is so held by everything but
    the mouth, where a fit of the whole face would be pulled along. Brightness and contrast may
    change.

    Parameters
    ----------
    template : (h, w) uint8
        The patch to find, at least 16x16.
    model : {"shift", "similarity"}, default "shift"
        What may happen to the template: a shift, or also rotation and scale, of a few degrees
        and percent.

    Raises
    ------
    ValueError
        If an argument is no such array or model.

    Examples
    --------
    >>> import cv2, numpy as np
    >>> noise = np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8)
    >>> image = cv2.GaussianBlur(noise, (0, 0), 2)
    >>> moved = cv2.warpAffine(image, np.array([[1, 0, 0.3], [0, 1, -0.4]]), (90, 90))
    >>> found = Registration(image[20:70, 20:70]).locate(moved, (44.5, 44.5))
    >>> bool(abs(found.x - 44.8) < 0.03), bool(abs(found.y - 44.1) < 0.03)
    (True, True)
    """

    def __init__(
        self, template: NDArray[np.uint8], *, model: Literal["shift", "similarity"] = "shift"
    ) -> None:
        check_array("template", template, dtypes=("uint8",), ndim=(2,))
        if min(template.shape) < MINIMUM_SIZE:
            raise ValueError(
                f"template must be at least {MINIMUM_SIZE}x{MINIMUM_SIZE} pixels. "
                f"Got shape {template.shape}."
            )
        check_choice("model", model, ("shift", "similarity"))
        self._similarity = model == "similarity"
        self._fine = _Blocks.of(template)
        self._coarse = None
        if self._similarity and min(template.shape) >= _REDUCTION * _REDUCED_SIDE:
            self._coarse = _Blocks.of(_reduced(template))
        # From the middle of the reduced template to that of the template, in its pixels.
        self._lag = [
            0.5 * (side - side // _REDUCTION * _REDUCTION) for side in template.shape[::-1]
        ]

    def locate(self, image: NDArray[np.uint8], start: tuple[float, float]) -> Placement:
        """Find how the template lies in an image.

        Parameters
        ----------
        image : (H, W) uint8
            The image searched.
        start : (x, y)
            About where the middle of the template is, to a pixel or two, as a template search
            gives it.

        Returns
        -------
        Placement
            ``start`` itself when the template is too flat to be located.

        Raises
        ------
        ValueError
            If ``image`` is no such array or ``start`` is not finite.
        """
        check_array("image", image, dtypes=("uint8",), ndim=(2,))
        x, y = (check_number("start", value) for value in start)
        matrix = np.array([[1.0, 0.0, x], [0.0, 1.0, y]])
        pixels = np.ascontiguousarray(image)
        if self._coarse is not None:
            self._find_coarsely(pixels, matrix)
        self._fine.refine(pixels, matrix, similarity=self._similarity)
        return _placement(matrix)

    def _find_coarsely(self, image: NDArray[np.uint8], matrix: Floats) -> None:
        """Bring the matrix near by a search in the reduced image."""
        assert self._coarse is not None
        # The middle of a reduced pixel lies this far from that of its first pixel.
        offset = 0.5 * (_REDUCTION - 1)
        middle = matrix[:, 2] - matrix[:, :2] @ self._lag
        reduced = np.column_stack([matrix[:, :2], (middle - offset) / _REDUCTION])
        self._coarse.refine(_reduced(image), reduced, similarity=True)
        matrix[:, :2] = reduced[:, :2]
        matrix[:, 2] = reduced[:, 2] * _REDUCTION + offset + reduced[:, :2] @ self._lag


@dataclass(frozen=True, slots=True, eq=False)
class _Blocks:
    """The prepared blocks of a template."""

    centres: Floats
    weights: Floats
    patterns: NDArray[np.float32]
    inverses: Floats
    radius: float

    @classmethod
    def of(cls, template: NDArray[np.uint8]) -> _Blocks:
        height, width = template.shape
        side = min(_SIDE, max(_LEAST_SIDE, min(height, width) // _BLOCKS_ACROSS))
        tops, lefts = (
            axis.ravel()
            for axis in np.meshgrid(_corners(height, side), _corners(width, side), indexing="ij")
        )
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

    def refine(self, image: NDArray[np.uint8], matrix: Floats, *, similarity: bool) -> None:
        """Bring the matrix to where the blocks find themselves."""
        steps, seen = np.zeros_like(self.centres), np.empty(len(self.centres), np.bool_)
        for _ in range(_STEPS):
            measure_blocks(image, self.patterns, self.inverses, self.centres, matrix, steps, seen)
            p = fit_motion(self.centres, steps, self.weights * seen, similarity, _ROUNDS)
            matrix += [[p[2], -p[3], p[0]], [p[3], p[2], p[1]]]
            if max(abs(p[0]), abs(p[1])) + self.radius * (abs(p[2]) + abs(p[3])) < _SETTLED:
                return


def _corners(length: int, side: int) -> NDArray[np.int64]:
    """Return where adjoining blocks begin, a pixel inside a template at least, and centred."""
    count = max((length - 2) // side, 1)
    return (length - count * side) // 2 + side * np.arange(count)


def _reduced(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = (side // _REDUCTION for side in image.shape)
    whole = image[: height * _REDUCTION, : width * _REDUCTION]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))


def _placement(matrix: Floats) -> Placement:
    scale = math.hypot(matrix[0, 0], matrix[1, 0])
    rotation = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
    return Placement(float(matrix[0, 2]), float(matrix[1, 2]), rotation, scale)
