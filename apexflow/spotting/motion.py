"""How a face has moved since its template: small fields of flow, and what they say by region.

The flow of every sample is computed against one crop, that of the template. Motion between
samples any k apart is then a difference of two fields: exact to second order in displacements
of a pixel or two, and one flow a sample serves every k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.errors import ApexflowError
from apexflow.kernels import clg, normalize_light, prepare_clg
from apexflow.spotting.recipe import Flow

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Corners = tuple[float, float, float, float]

CELLS = 24
"""Cells of a field, each way."""

LANDMARKS: tuple[tuple[float, float], ...] = (
    (0.26, 0.36),
    (0.74, 0.37),
    (0.50, 0.60),
    (0.27, 0.72),
    (0.73, 0.73),
)
"""Eyes, nose, mouth corners in parts of the box that MTCNN finds, where nobody says better."""

_REFERENCE_HEIGHT = 224  # px: what a recipe's lengths of the flow are told for


class FaceMotion:
    """Motion against one crop of a face.

    Parameters
    ----------
    crop : (side, side) uint8
    recipe : Flow
    eyes : sequence of (x0, y0, x1, y1)
        Where the eyes are, in parts of the crop.
    """

    def __init__(self, crop: Image, recipe: Flow, eyes: Sequence[Corners] = ()) -> None:
        self._recipe = recipe
        self._scale = crop.shape[0] / _REFERENCE_HEIGHT
        side = crop.shape[0]
        self._eyes = [tuple(round(value * side) for value in eye) for eye in eyes]
        self._normalized = self._normalize(crop)
        self._first = prepare_clg(self._normalized, levels=recipe.levels)

    def measure(self, crop: Image) -> tuple[Floats, float]:
        """Return the field of motion, and how much the eyes have changed.

        Returns
        -------
        field : (2, CELLS, CELLS) float32
            Mean displacement (x, y) of each cell in pixels of the crop.
        eyes : float
            Mean absolute difference of the normalised gray levels in the eyes.
        """
        normalized = self._normalize(crop)
        second = prepare_clg(normalized, levels=self._recipe.levels)
        flow = clg(
            self._first,
            second,
            alpha=self._recipe.alpha,
            rho=self._recipe.rho * self._scale,
            levels=self._recipe.levels,
            warps=self._recipe.warps,
            tolerance=self._recipe.tolerance,
        )
        field = cv2.resize(flow, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
        changes = [
            float(np.abs(normalized[y0:y1, x0:x1] - self._normalized[y0:y1, x0:x1]).mean())
            for x0, y0, x1, y1 in self._eyes
        ]
        return np.moveaxis(field, -1, 0), float(np.mean(changes)) if changes else 0.0

    def _normalize(self, crop: Image) -> Floats:
        options = {"sigma": self._recipe.sigma * self._scale, "epsilon": self._recipe.epsilon}
        return normalize_light(crop, **options)


@dataclass(frozen=True, slots=True)
class FaceRegions:
    """Which cells of a field are brows, mouth, nose and eyes.

    Attributes
    ----------
    blocks : tuple of (region, corners)
        The blocks whose motion is looked at: "left brow", "right brow" and "mouth", left as
        seen; corners (x0, y0, x1, y1) in parts of the crop.
    nose : corners
        What moves with the head alone.
    eyes : tuple of corners
    """

    blocks: tuple[tuple[str, Corners], ...]
    nose: Corners
    eyes: tuple[Corners, ...]

    @classmethod
    def of(cls, landmarks: Sequence[Sequence[float]] | NDArray[Any] | None) -> FaceRegions:
        """Lay regions on a face by its eyes, nose and mouth corners, left to right as seen.

        ``landmarks`` (5, 2) are in parts of the crop; None takes what is usual. The distances
        are those of SOFTNet's regions: brows and eyes, and the mouth.
        """
        points = np.asarray(LANDMARKS if landmarks is None else landmarks, float)
        if points.shape != (5, 2) or not np.isfinite(points).all():
            raise ApexflowError(f"landmarks must be 5 points (x, y). Got shape {points.shape}.")
        left, right, nose, mouth_left, mouth_right = points
        apart = float(right[0] - left[0])
        if not 0.1 < apart < 1:
            raise ApexflowError(
                f"landmarks must be the left and right eye, nose, left and right mouth corner in "
                f"parts of the crop; the eyes are {apart:.2f} apart"
            )
        brows = [
            (name, *_halves(x - 0.4 * apart, y - 0.62 * apart, x + 0.4 * apart, y - 0.16 * apart))
            for name, (x, y) in (("left brow", left), ("right brow", right))
        ]
        level = (mouth_left[1] + mouth_right[1]) / 2
        first, last = mouth_left[0] - 0.25 * apart, mouth_right[0] + 0.25 * apart
        thirds = np.linspace(first, last, 4)
        rows = level - 0.32 * apart, level + 0.08 * apart, level + 0.5 * apart
        mouth = [
            ("mouth", (float(thirds[j]), float(rows[i]), float(thirds[j + 1]), float(rows[i + 1])))
            for i in range(2)
            for j in range(3)
        ]
        middle, eye_level = float(nose[0]), float((left[1] + right[1]) / 2)
        return cls(
            blocks=(*((name, half) for name, *halves in brows for half in halves), *mouth),
            nose=(middle - 0.2 * apart, eye_level + 0.1 * apart, middle + 0.2 * apart, nose[1]),
            eyes=tuple(
                (x - 0.25 * apart, y - 0.1 * apart, x + 0.25 * apart, y + 0.1 * apart)
                for x, y in (left, right)
            ),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The region of each block."""
        return tuple(name for name, _ in self.blocks)

    def features(self, side: int) -> NDArray[np.float32]:
        """Return the linear map from a field to u, v and strain of each block.

        Parameters
        ----------
        side : int
            Of the crop, in pixels.

        Returns
        -------
        (block * 5, 2 * CELLS * CELLS) float32
            For each block: u and v less those of the nose; the strains xx, yy and sqrt(2) xy,
            times the block's width, so that all are in pixels of the crop.
        """
        cell = side / CELLS
        slope_x, slope_y = _slopes(cell)
        nose = _mean(self.nose)
        nothing = np.zeros(CELLS * CELLS)
        rows = []
        for _, corners in self.blocks:
            mean, width = _mean(corners), (corners[2] - corners[0]) * side
            along_x, along_y = width * (mean @ slope_x), width * (mean @ slope_y)
            rows += [
                (mean - nose, nothing),
                (nothing, mean - nose),
                (along_x, nothing),
                (nothing, along_y),
                (along_y / np.sqrt(2), along_x / np.sqrt(2)),
            ]
        return np.array([np.concatenate(row) for row in rows], np.float32)


FEATURES = 5  # of a block


def _halves(x0: float, y0: float, x1: float, y1: float) -> tuple[Corners, Corners]:
    middle = (x0 + x1) / 2
    return (float(x0), float(y0), float(middle), float(y1)), (
        float(middle),
        float(y0),
        float(x1),
        float(y1),
    )


def _mean(corners: Corners) -> NDArray[np.float64]:
    """Return the weights (CELLS * CELLS,) of the mean over the cells of a box, by their part."""
    x0, y0, x1, y1 = (min(max(value, 0.0), 1.0) * CELLS for value in corners)
    start = np.arange(CELLS)
    across = np.clip(np.minimum(start + 1, x1) - np.maximum(start, x0), 0, 1)
    down = np.clip(np.minimum(start + 1, y1) - np.maximum(start, y0), 0, 1)
    weights = np.outer(down, across).ravel()
    total = weights.sum()
    return weights / total if total else weights


def _slopes(cell: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the matrices of central differences over cells, along x and y."""
    one = np.eye(CELLS)
    slope = np.asarray(np.gradient(one, cell, axis=0), np.float64)
    return np.asarray(np.kron(one, slope)), np.asarray(np.kron(slope, one))
