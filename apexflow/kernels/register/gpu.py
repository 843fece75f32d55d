"""Registration on a GPU: one template in all frames of a clip at once.

A step reads 33 x 33 pixels a block and the blocks' patterns, which stay in the second cache:
2 MB for a frame with 128 blocks, so that the three steps take about a microsecond of memory.
Everything stays on the device; frames that have settled are skipped there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from apexflow.kernels.gpu import Device, in_batches
from apexflow.kernels.register.blocks import LEAST_CONTRAST
from apexflow.kernels.register.prepared import ROUNDS, SETTLED, STEPS, Blocks
from apexflow.kernels.register.reduce import REDUCTION
from apexflow.kernels.register.robust import FALLING, FLOOR, NOISE, SPREAD, TUKEY

_SOURCE = "register/register.cu"
_THREADS = 128  # as the source says


class DeviceRegistration:
    """One template on a device, prepared to be located in many images.

    Parameters
    ----------
    fine : Blocks
        Of the template.
    coarse : Blocks, optional
        Of the reduced template, which is then looked for first.
    lag : (float, float)
        From the middle of the reduced template to that of the template, in its pixels.
    similarity, falling : bool
        As `Blocks.refine` takes them.
    device : Device
    """

    def __init__(
        self,
        fine: Blocks,
        coarse: Blocks | None,
        lag: tuple[float, float],
        *,
        similarity: bool,
        falling: bool,
        device: Device,
    ) -> None:
        self._device = device
        self._fine = _DeviceBlocks(fine, device)
        self._coarse = None if coarse is None else _DeviceBlocks(coarse, device)
        self._lag = lag
        self._similarity, self._falling = similarity, falling

    def locate_all(self, images: Any, starts: Any) -> tuple[Any, Any, Any, Any]:
        """Find how the template lies in images.

        Parameters
        ----------
        images : (N, H, W) uint8
            On the device.
        starts : (N, 2) float
            (x, y) of the middle of the template; may be NumPy's.

        Returns
        -------
        x, y, rotation, scale : (N,) float64
        """
        xp = self._device.xp
        images = xp.ascontiguousarray(images)
        matrices = xp.zeros((len(images), 2, 3), np.float64)
        matrices[:, 0, 0] = matrices[:, 1, 1] = 1
        matrices[:, :, 2] = xp.asarray(starts)
        height, width = images.shape[1:]
        in_batches(
            lambda part: self._locate(images[part], matrices[part]),
            len(images),
            height * width // REDUCTION**2 + 64 * self._fine.count,
            self._device,
        )
        rotation = xp.degrees(xp.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
        scale = xp.hypot(matrices[:, 0, 0], matrices[:, 1, 0])
        return matrices[:, 0, 2].copy(), matrices[:, 1, 2].copy(), rotation, scale

    def _locate(self, images: Any, matrices: Any) -> None:
        start = matrices.copy()  # a batch that fails half-way begins again
        if self._coarse is not None:
            self._find_coarsely(images, start)
        self._fine.refine(images, start, similarity=self._similarity, falling=self._falling)
        matrices[:] = start

    def _find_coarsely(self, images: Any, matrices: Any) -> None:
        """Bring the matrices near by a search in the reduced images."""
        assert self._coarse is not None
        xp = self._device.xp
        count, height, width = images.shape
        size = height // REDUCTION, width // REDUCTION
        small = xp.empty((count, *size), np.uint8)
        self._device.kernel(_SOURCE, "reduce_images")(
            (-(-size[0] * size[1] // _THREADS), count),
            (_THREADS,),
            (images, np.int32(height), np.int32(width), small),
        )
        # The middle of a reduced pixel lies this far from that of its first pixel.
        offset = 0.5 * (REDUCTION - 1)
        reduced = matrices.copy()
        reduced[:, :, 2] = (matrices[:, :, 2] - self._lagging(matrices) - offset) / REDUCTION
        self._coarse.refine(small, reduced, similarity=True, falling=False)
        matrices[:, :, :2] = reduced[:, :, :2]
        matrices[:, :, 2] = reduced[:, :, 2] * REDUCTION + offset + self._lagging(reduced)

    def _lagging(self, matrices: Any) -> Any:
        return matrices[:, :, 0] * self._lag[0] + matrices[:, :, 1] * self._lag[1]


class _DeviceBlocks:
    """The prepared blocks of a template, on a device."""

    def __init__(self, blocks: Blocks, device: Device) -> None:
        xp = device.xp
        self._device = device
        self.count = len(blocks.centres)
        self._side = np.int32(blocks.patterns.shape[-1])
        self._radius = blocks.radius
        self._patterns = xp.asarray(blocks.patterns)
        self._inverses = xp.asarray(blocks.inverses)
        self._centres = xp.asarray(np.ascontiguousarray(blocks.centres))
        self._weights = xp.asarray(blocks.weights)

    def refine(self, images: Any, matrices: Any, *, similarity: bool, falling: bool) -> None:
        """Bring the matrices to where the blocks of each image find themselves."""
        xp = self._device.xp
        frames, height, width = images.shape
        reaches = xp.asarray(np.array(FALLING if falling else (), np.float64))
        settled = xp.zeros(frames, np.int32)
        steps = xp.empty((frames, self.count, 2), np.float64)
        seen = xp.empty((frames, self.count), np.int32)
        values, weights = (xp.empty((frames, self.count), np.float64) for _ in range(2))
        measured = (
            images,
            np.int32(height),
            np.int32(width),
            self._patterns,
            self._side,
            self._inverses,
            self._centres,
            np.float32(LEAST_CONTRAST),
            matrices,
            settled,
            steps,
            seen,
        )
        fitted = (
            self._centres,
            self._weights,
            np.int32(self.count),
            steps,
            seen,
            np.int32(similarity),
            np.int32(ROUNDS),
            reaches,
            np.int32(len(reaches)),
            *map(np.float64, (TUKEY, SPREAD, FLOOR, NOISE, self._radius, SETTLED)),
            values,
            weights,
            matrices,
            settled,
        )
        measure = self._device.kernel(_SOURCE, "measure_blocks")
        fit = self._device.kernel(_SOURCE, "fit_motions")
        for _ in range(STEPS):
            measure((self.count, frames), (_THREADS,), measured)
            fit((frames,), (_THREADS,), fitted)
