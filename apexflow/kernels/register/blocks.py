"""Blocks of a template: prepared once, then measured in image after image.

Each block takes one Gauss-Newton step towards its place in the image [1]_. Its gradients are
freed beforehand of their mean and of their part along the block's own pattern, so that neither
brightness nor contrast of the image can look like motion, and the step costs three products a
pixel.

References
----------
.. [1] S. Baker, I. Matthews, "Lucas-Kanade 20 years on", IJCV 56, 2004, the inverse
   compositional form. https://doi.org/10.1023/B:VISI.0000011205.11775.fd
"""

from __future__ import annotations

import math

import numpy as np

from apexflow.kernels.compiled import njit

_F = np.float32
# Sums may be reordered, so that they vectorise: 4x faster. Such a function must be called from
# Python alone: called by a compiled one it exists twice, with sums in two orders, and which of
# them runs depends on what this process has compiled and what it has read from the cache.
_FAST = {"reassoc", "contract", "nsz"}
LEAST_CONTRAST = _F(0.3)


@njit(fastmath=_FAST)
def prepare_blocks(template, tops, lefts, patterns, inverses, strengths):  # type: ignore[no-untyped-def]
    """Prepare square blocks of a template.

    Parameters
    ----------
    template : (H, W) float32
    tops, lefts : (n,) int64
        Corners; a pixel of the template must lie around each block.
    patterns : (n, 3, side, side) float32
        Filled with the freed gradients in x and y, and the freed block itself, scaled so that
        its product with an image gives the contrast.
    inverses : (n, 3) float64
        Filled with the inverse of the gradients' products: xx, xy, yy.
    strengths : (n,) float64
        Filled with the smaller eigenvalue of these products: 0 where a block fixes no position.
    """
    side = patterns.shape[2]
    area = side * side
    for n in range(tops.size):
        top, left = tops[n], lefts[n]
        gx, gy, t = patterns[n, 0], patterns[n, 1], patterns[n, 2]
        sum_x = sum_y = sum_t = _F(0)
        for r in range(side):
            y = top + r
            for c in range(side):
                x = left + c
                gx[r, c] = (template[y, x + 1] - template[y, x - 1]) * _F(0.5)
                gy[r, c] = (template[y + 1, x] - template[y - 1, x]) * _F(0.5)
                t[r, c] = template[y, x] - template[top, left]
                sum_x += gx[r, c]
                sum_y += gy[r, c]
                sum_t += t[r, c]
        tt, tx, ty = _F(1e-6), _F(0), _F(0)
        for r in range(side):
            for c in range(side):
                gx[r, c] -= sum_x / _F(area)
                gy[r, c] -= sum_y / _F(area)
                t[r, c] -= sum_t / _F(area)
                tt += t[r, c] * t[r, c]
                tx += t[r, c] * gx[r, c]
                ty += t[r, c] * gy[r, c]
        xx = xy = yy = 0.0
        for r in range(side):
            for c in range(side):
                gx[r, c] -= tx / tt * t[r, c]
                gy[r, c] -= ty / tt * t[r, c]
                t[r, c] /= tt
                xx += gx[r, c] * gx[r, c]
                xy += gx[r, c] * gy[r, c]
                yy += gy[r, c] * gy[r, c]
        strengths[n] = 0.5 * (xx + yy) - math.sqrt(0.25 * (xx - yy) ** 2 + xy * xy)
        determinant = max(xx * yy - xy * xy, 1e-12)
        inverses[n, 0] = yy / determinant
        inverses[n, 1] = -xy / determinant
        inverses[n, 2] = xx / determinant


@njit(fastmath=_FAST)
def measure_blocks(image, patterns, inverses, centres, matrix, steps, seen):  # type: ignore[no-untyped-def]
    """Take one step for each block from where a matrix puts it.

    A block is moved as a whole and never turned: over its 32 pixels a head that turns by 1
    degree is off by .3 px at the ends, in opposite directions.

    Parameters
    ----------
    image : (H, W) uint8
    patterns, inverses
        As `prepare_blocks` fills them.
    centres : (n, 2) float64
        (x, y) of the middle of each block, against the middle of the template.
    matrix : (2, 3) float64
        From there to pixels of the image.
    steps : (n, 2) float64
        Filled with (x, y), in pixels of the image.
    seen : (n,) bool
        Filled with whether the block lies inside the image and steps by less than half its
        side.
    """
    height, width = image.shape
    side = patterns.shape[2]
    half = 0.5 * (side - 1)
    for n in range(len(centres)):
        x = matrix[0, 0] * centres[n, 0] + matrix[0, 1] * centres[n, 1] + matrix[0, 2] - half
        y = matrix[1, 0] * centres[n, 0] + matrix[1, 1] * centres[n, 1] + matrix[1, 2] - half
        seen[n] = 0 <= x < width - side and 0 <= y < height - side
        if not seen[n]:
            continue
        left, top = int(x), int(y)
        fx, fy = _F(x - left), _F(y - top)
        w00, w01 = (_F(1) - fx) * (_F(1) - fy), fx * (_F(1) - fy)
        w10, w11 = (_F(1) - fx) * fy, fx * fy
        bx = by = contrast = _F(0)
        for r in range(side):
            upper = image[top + r, left : left + side + 1]
            lower = image[top + r + 1, left : left + side + 1]
            gx, gy, t = patterns[n, 0, r], patterns[n, 1, r], patterns[n, 2, r]
            for c in range(side):
                value = (
                    w00 * _F(upper[c])
                    + w01 * _F(upper[c + 1])
                    + w10 * _F(lower[c])
                    + w11 * _F(lower[c + 1])
                )
                bx += gx[c] * value
                by += gy[c] * value
                contrast += t[c] * value
        scale = -1.0 / max(contrast, LEAST_CONTRAST)
        steps[n, 0] = scale * (inverses[n, 0] * bx + inverses[n, 1] * by)
        steps[n, 1] = scale * (inverses[n, 1] * bx + inverses[n, 2] * by)
        seen[n] = abs(steps[n, 0]) < half and abs(steps[n, 1]) < half
