"""The motion that most blocks share: a fit that the others do not pull."""

from __future__ import annotations

import math

import numpy as np

from apexflow.kernels.compiled import njit

# Tukey's constant: 95% efficiency on Gaussian errors (Huber, Robust Statistics, 1981).
TUKEY = 4.685
# From the median length of a two-dimensional Gaussian error to its deviation an axis.
SPREAD = 1 / math.sqrt(2 * math.log(2))
# px: how far a block may lie off in the rounds that follow when the reach falls. The median
# distance says how far blocks lie that agree, as long as most of them stand still; where skin moves
# under seven blocks of ten it is the skin's. Errors of the shift from onset to apex of faces of 140
# to 220 px: .021 px, worst .034, for .028, worst .095 (benchmarks/alignment.py).
FALLING = (0.3, 0.15, 0.08, 0.08)
# px times the root of a block's strength: the error of its step an axis in sensor noise of 2 gray
# levels in both images. No block is left out for what noise does to it.
NOISE = 2.8
# px: below it differences between blocks are interpolation and noise, not motion.
FLOOR = 0.02


@njit
def fit_motion(points, steps, weights, similarity, rounds, falling):  # type: ignore[no-untyped-def]
    """Fit a shift, or a similarity, to steps at points, by what most of them agree on.

    Iteratively reweighted least squares from the median: first by distance (the geometric
    median), then by Tukey's biweight, which gives no weight at all to what lies far off.

    Parameters
    ----------
    points, steps : (n, 2) float64
        (x, y)
    weights : (n,) float64
        0 leaves a point out.
    similarity : bool
        Whether to fit rotation and scale too; they need three points.
    rounds : int
        Of each kind.
    falling : (k,) float64
        Reaches in px of k further rounds by the biweight, one after the other; each at least
        Tukey's constant times a point's own error by noise, `NOISE` / weight.

    Returns
    -------
    (4,) float64
        p such that ``step = (p0 + p2 x - p3 y, p1 + p3 x + p2 y)``; zeros without any point.
    """
    p = np.zeros(4)
    chosen = weights > 0
    count = np.count_nonzero(chosen)
    if count == 0:
        return p
    similarity = similarity and count >= 3
    p[0], p[1] = np.median(steps[chosen, 0]), np.median(steps[chosen, 1])
    distance, weight = np.zeros(len(points)), np.zeros(len(points))
    for i in range(2 * rounds + len(falling)):
        for n in range(len(points)):
            x, y = points[n]
            ex = steps[n, 0] - (p[0] + p[2] * x - p[3] * y)
            ey = steps[n, 1] - (p[1] + p[3] * x + p[2] * y)
            distance[n] = math.sqrt(ex * ex + ey * ey)
        reach = TUKEY * max(SPREAD * np.median(distance[chosen]), FLOOR)
        for n in range(len(points)):
            if i < rounds:
                weight[n] = weights[n] / max(distance[n], FLOOR)
                continue
            own = reach
            if i >= 2 * rounds and weights[n] > 0:
                own = max(falling[i - 2 * rounds], TUKEY * NOISE / weights[n])
            weight[n] = weights[n] * max(1.0 - (distance[n] / own) ** 2, 0.0) ** 2
        _weighted_fit(points, steps, weight, similarity, p)
    return p


@njit
def _weighted_fit(points, steps, weights, similarity, p):  # type: ignore[no-untyped-def]
    """Put the weighted least-squares solution into p, in closed form."""
    total = weights.sum()
    if total <= 0:
        return
    x = y = u = v = 0.0
    for n in range(len(points)):
        share = weights[n] / total
        x += share * points[n, 0]
        y += share * points[n, 1]
        u += share * steps[n, 0]
        v += share * steps[n, 1]
    if similarity:
        spread, stretch, turn = 1e-9, 0.0, 0.0
        for n in range(len(points)):
            px, py = points[n, 0] - x, points[n, 1] - y
            spread += weights[n] * (px * px + py * py)
            stretch += weights[n] * (px * (steps[n, 0] - u) + py * (steps[n, 1] - v))
            turn += weights[n] * (px * (steps[n, 1] - v) - py * (steps[n, 0] - u))
        p[2], p[3] = stretch / spread, turn / spread
    p[0], p[1] = u - p[2] * x + p[3] * y, v - p[3] * x - p[2] * y
