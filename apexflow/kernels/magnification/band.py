"""The frames of a clip within a band of frequencies: a few images, and the curve of each.

The filter is ideal: frequencies in the band stay as they are, others vanish, without delay. Its
waves are the cosines of `apexflow.kernels.path_graph`, so that it sees the clip mirrored at both
ends. A clip that ends otherwise than it began does not ring, as it would with sines.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.magnification.arguments import Floats, Frames, read_frames
from apexflow.kernels.path_graph import eigenvectors

_LIGHT_SIGMA = 16.0  # px: what is wider is light rather than the details of a face


class Band:
    """A clip's frames, of which nothing is kept but their mean and the band.

    Parameters
    ----------
    frames : sequence of images
        Read once.
    numbers : (n,) int64
        Of the frames, rising; a missing one counts as halfway between its neighbours.
    rate : float
        Frames a second.
    low, high : float
        In Hz, the ends included.
    """

    def __init__(
        self,
        frames: Frames,
        numbers: NDArray[np.int64],
        rate: float,
        low: float,
        high: float,
    ) -> None:
        chosen = _frequencies(numbers, rate, low, high)
        times = numbers - numbers[0]
        span = int(times[-1]) + 1
        self._curves = eigenvectors(times, span)[:, chosen].astype(np.float32)
        there = np.stack([np.interp(np.arange(span), times, row) for row in np.eye(len(times))])
        # Not by BLAS, whose threads may round otherwise from run to run.
        weights = (
            2 / span * np.einsum("ig,gk->ik", there, eigenvectors(np.arange(span), span)[:, chosen])
        )
        shares = there.sum(axis=1) / span
        shape = np.asarray(frames[0]).shape
        self._images = np.zeros((len(chosen), *shape), np.float32)
        self._mean = np.zeros(shape, np.float32)
        for frame, row, share in zip(
            read_frames(frames), weights.astype(np.float32), shares.astype(np.float32), strict=True
        ):
            self._mean += share * frame
            for image, weight in zip(self._images, row, strict=True):
                np.add(image, weight * frame, out=image)

    def frame(self, number: int) -> Floats:
        """Return a frame as it is within the band, on the mean of all."""
        return self._mean + self._sum(self._curves[number])

    def change(self, number: int, reference: int) -> Floats:
        """Return what a frame has within the band and the reference has not."""
        return self._sum(self._curves[number] - self._curves[reference])

    def farthest(self, reference: int) -> int:
        """Return the index of the frame whose details differ from the reference's the most."""
        flat = np.stack([_details(image).ravel() for image in (self._mean, *self._images)])[1:]
        products = np.einsum("ix,jx->ij", flat, flat, dtype=np.float64)
        apart = (self._curves - self._curves[reference]).astype(np.float64)
        return int(np.einsum("ti,ij,tj->t", apart, products, apart).argmax())

    def _sum(self, weights: Floats) -> Floats:
        total = np.zeros(self._mean.shape, np.float32)
        for image, weight in zip(self._images, weights, strict=True):
            total += weight * image
        return total


def _details(image: Floats) -> Floats:
    return image - cv2.GaussianBlur(image, (0, 0), _LIGHT_SIGMA)


def _frequencies(
    numbers: NDArray[np.int64], rate: float, low: float, high: float
) -> NDArray[np.intp]:
    """Return which eigenvectors of the frames' path graph lie in the band, counted from 0."""
    span = int(numbers[-1] - numbers[0]) + 1
    if span > 2 * len(numbers):
        raise ValueError(
            f"numbers must miss no more frames than there are. Got {len(numbers)} of {span}."
        )
    hertz = np.arange(1, span) * rate / (2 * span)
    chosen = np.flatnonzero((low <= hertz) & (hertz <= high))
    if span > 1 and not chosen.size:
        raise ValueError(
            f"low and high must have a frequency of the clip between them: {span} frames at "
            f"{rate:g} frames/s have {hertz[0]:.3g} to {hertz[-1]:.3g} Hz. Got {low:g} and "
            f"{high:g} Hz."
        )
    return chosen
