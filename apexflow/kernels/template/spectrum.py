"""The correlation with a template at all positions, exact, by one DFT in double precision."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.template.sums import CENTRE


class Spectrum:
    """The spectrum of a template, for regions of one size.

    Pixels are centred integers of at most 128, so a correlation is an integer. The DFT's error
    is below ``eps * log2(n) * 20`` times the norms of region and template (Higham 2002,
    Accuracy and Stability of Numerical Algorithms, section 24.1), which stays under 1/50 for
    templates up to `matcher.MAXIMUM_SIZE`, so that rounding restores the integers exactly.

    Parameters
    ----------
    template : (h, w, C) uint8
    shape : (int, int)
        Height and width of the regions.
    """

    def __init__(self, template: NDArray[np.uint8], shape: tuple[int, int]) -> None:
        self.shape = shape
        self._valid = (shape[0] - template.shape[0] + 1, shape[1] - template.shape[1] + 1)
        # A circular correlation of the region's own size would do: no valid position wraps
        # around. A size of small prime factors is faster.
        size = (cv2.getOptimalDFTSize(shape[0]), cv2.getOptimalDFTSize(shape[1]))
        self._padded = np.zeros(size)
        self._spectra = [self._transform(channel) for channel in np.moveaxis(template, 2, 0)]
        self._padded[:] = 0

    def _transform(self, channel: NDArray[np.uint8]) -> NDArray[np.float64]:
        corner = self._padded[: channel.shape[0], : channel.shape[1]]
        np.subtract(channel, CENTRE, out=corner, dtype=np.float64)
        return np.asarray(cv2.dft(self._padded))

    def correlate(self, region: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the sum of products at every position, pooled over the channels."""
        total: Any = 0
        for channel, spectrum in zip(np.moveaxis(region, 2, 0), self._spectra, strict=True):
            total = total + cv2.mulSpectrums(self._transform(channel), spectrum, 0, conjB=True)
        correlation = cv2.dft(total, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE)
        return np.rint(correlation[: self._valid[0], : self._valid[1]]).astype(np.int64)
