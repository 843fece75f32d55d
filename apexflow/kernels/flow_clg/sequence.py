"""One flow from many frames of a clip, in which the noise of two frames averages out.

An expression grows and fades, but moves the skin along the same field all the while: frame t
shows it at an amplitude c_t, 0 at the onset and 1 at the apex. Once the flow is about known, the
amplitudes follow from a fit of one number a frame, and with them all frames around onset and
apex tell about the flow.

`track` says in which order the steps are taken; `_CpuSteps` takes them here, `gpu.DeviceSteps`
on a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels import gpu as devices
from apexflow.kernels._validate import check_integer, check_numbers
from apexflow.kernels.flow_clg import cpu, stack
from apexflow.kernels.flow_clg.arguments import (
    DEVIATION,
    FIRST_SMOOTHNESS,
    FITS,
    HOLD,
    MEAN_REACH,
    MOVED,
    OUTLIER_LEVELS,
    OUTLIER_RHO,
    PRIOR,
    SAMPLING,
    STILL,
    CLGSequence,
    Doubles,
    Solver,
    check_levels,
    check_solver,
    check_stack,
)
from apexflow.kernels.flow_clg.pair import (
    confidence_of_fit,
    confidence_of_pair,
    flow_of_pair,
    interleaved,
    prepare,
)
from apexflow.kernels.light.gaussian import Floats, gaussian_taps, plane_size


class Steps(Protocol):
    """Where a clip's frames lie and are computed with."""

    def begin(self, still: NDArray[np.intp], moved: NDArray[np.intp]) -> None:
        """Draw the first flow between the means of these frames; the first is the reference."""

    def compare(self, amplitudes: Doubles) -> tuple[Doubles, float, Doubles]:
        """Warp all frames by the flow times their amplitudes.

        With r a frame's residual against the reference and d the reference's slope along the
        flow, return for each frame the sum over d r, for all of them the sum over d d, and for
        each frame the median of |r|.
        """

    def correct(self, scale: float, amplitudes: Doubles, still: Doubles, moved: Doubles) -> None:
        """Scale the flow and improve it by what all frames leave.

        ``still`` are the weights of the frames in the reference, ``moved`` the amplitudes of
        those whose residual counts, 0 for the others.
        """

    def result(self, amplitudes: Floats, confidence: bool) -> CLGSequence:
        """Return the flow and the rest where the frames were."""


@dataclass(frozen=True)
class Reach:
    """Which frames of a clip take part, and how.

    Attributes
    ----------
    chosen : (k,) intp
        Positions of the frames in the stack, rising.
    numbers : (k,) int64
        Their numbers: when they were taken.
    expected : (k,) float64
        Their amplitude by their place alone: 0 around the onset, 1 around the apex.
    onset, apex : int
        Positions of the two among the chosen.
    """

    chosen: NDArray[np.intp]
    numbers: NDArray[np.int64]
    expected: Doubles
    onset: int
    apex: int

    @classmethod
    def of(cls, numbers: NDArray[np.int64], onset: int, apex: int, reach: int) -> Reach:
        """Return the frames within reach; none is counted to the farther of onset and apex."""
        from_onset = (numbers - numbers[onset]) * (1 if apex >= onset else -1)
        length = abs(numbers[apex] - numbers[onset])
        first = 2 * from_onset <= length
        distance = np.where(first, abs(from_onset), abs(from_onset - length))
        chosen = np.flatnonzero(distance <= reach)
        return cls(
            chosen,
            numbers[chosen],
            np.where(first[chosen], 0.0, 1.0),
            int(np.searchsorted(chosen, onset)),
            int(np.searchsorted(chosen, apex)),
        )

    def around(self, position: int) -> NDArray[np.intp]:
        """Return the positions of the frames whose mean the first flow takes."""
        near = abs(self.numbers - self.numbers[position]) <= MEAN_REACH
        return np.flatnonzero(near & (self.expected == self.expected[position]))


def clg_sequence(
    frames: NDArray[Any],
    onset: int,
    apex: int,
    *,
    numbers: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    reach: int = 8,
    alpha: float = 50.0,
    rho: float = 8.0,
    levels: int = 3,
    warps: int = 2,
    max_iterations: int = 40,
    tolerance: float = 1e-3,
    rounds: int = 2,
    confidence: bool = False,
) -> CLGSequence:
    """Compute the flow from the onset to the apex of a clip, from all frames around the two.

    First `clg` between the means of the frames within 2 of onset and apex, at twice the alpha.
    Then, in each round: (1) every frame gets its amplitude, by two Gauss-Newton steps that fit
    it, warped by its share of the flow, to the reference, which is the mean of the onset's
    frames; (2) the flow is scaled so that onset and apex have amplitude 0 and 1; (3) the
    reference becomes the mean of the warped frames of amplitudes up to .35, and the residual
    of those from .6 on, by least squares, corrects the flow by one solution as in `clg` [1]_.
    A pixel of a frame that differs from the median over the frames has less weight, so that a
    blink beside the apex does little harm; one in the apex frame itself defeats this.

    On 40 clips with known motion (224x224, noise of 2 gray levels, light that drifts) the mean
    end-point error was .033 px, that of one pair .054 and that of `farneback` .080.

    Parameters
    ----------
    frames : ndarray
        (n, H, W) uint8 or float32 within +-1e6, finite: aligned crops from `normalize_light`;
        NumPy or CuPy.
    onset, apex : int
        Their indices among the frames; the apex may come before the onset. Where both are one
        frame the flow is zero.
    numbers : sequence of int, optional
        The number of each frame, rising, where frames of the clip are missing; reach and
        halfway are counted by them.
    reach : int
        How many frames before and after onset and apex take part, as far as the clip has
        them; between the two none beyond half the way. 8 frames are 40 ms at 200 frames/s.
    alpha : float
        Weight of smoothness, as in `clg`, of the corrections.
    rho, levels, warps, max_iterations, tolerance
        As in `clg`.
    rounds : int
        How often amplitudes and flow are corrected; 0 leaves the flow between means.
    confidence : bool
        Whether to return the confidence as well, as that of `clg`: of the change that the mean
        of all frames leaves.

    Returns
    -------
    CLGSequence
        ``(flow, amplitudes, confidence)``; the flow is (H, W, 2) float32 as that of `clg` from
        the onset to the apex frame. CuPy's for CuPy's.

    Raises
    ------
    ValueError
        If an argument has a wrong shape, dtype or value.

    References
    ----------
    .. [1] A. Bruhn, J. Weickert, C. Schnörr, "Lucas/Kanade meets Horn/Schunck: combining local
       and global optic flow methods", IJCV 61, 2005.
       https://doi.org/10.1023/B:VISI.0000045324.43199.43

    Examples
    --------
    >>> import numpy as np
    >>> from apexflow.kernels import clg_sequence
    >>> y, x = np.mgrid[:64, :64].astype(np.float32)
    >>> wave = lambda x: 100 + 50 * np.sin(x / 4) * np.cos(y / 5)
    >>> frames = np.stack([wave(x - shift) for shift in (0, 0, 0.2, 0.5, 0.5)])
    >>> flow, amplitudes, _ = clg_sequence(frames, 0, 4)
    >>> bool(abs(flow - (0.5, 0)).max() < 0.1), bool(abs(amplitudes[2] - 0.4) < 0.02)
    (True, True)
    """
    frames = check_stack(frames)
    last = len(frames) - 1
    onset = check_integer("onset", onset, minimum=0, maximum=last)
    apex = check_integer("apex", apex, minimum=0, maximum=last)
    reach = check_integer("reach", reach, minimum=0)
    rounds = check_integer("rounds", rounds, minimum=0)
    levels = check_levels(levels)
    solver = check_solver(
        alpha=alpha, rho=rho, warps=warps, max_iterations=max_iterations, tolerance=tolerance
    )
    taken = check_numbers(numbers, len(frames))
    part = Reach.of(taken, onset, apex, reach if onset != apex else 0)
    steps: Steps
    if devices.on_device(frames=frames):
        from apexflow.kernels.flow_clg.gpu import DeviceSteps

        steps = DeviceSteps(frames, part.chosen, levels, solver, device=devices.cuda_device())
    else:
        steps = _CpuSteps(frames, part.chosen, levels, solver)
    found = track(steps, part, rounds if onset != apex else 0)
    amplitudes = np.full(len(frames), np.nan, np.float32)
    amplitudes[part.chosen] = found
    return steps.result(amplitudes, confidence)


def track(steps: Steps, reach: Reach, rounds: int) -> Doubles:
    """Draw the first flow, correct it in each round, and return the amplitudes."""
    steps.begin(reach.around(reach.onset), reach.around(reach.apex))
    amplitudes = reach.expected.copy()
    for _ in range(rounds):
        for _ in range(FITS):
            mixed, squared, median = steps.compare(amplitudes)
            prior = PRIOR * DEVIATION * median**2
            pull = prior * (reach.expected - amplitudes) - mixed
            weight = squared + prior
            # A frame without any contrast stays where it is.
            amplitudes = amplitudes + np.divide(pull, weight, out=0 * pull, where=weight > 0)
        start = amplitudes[reach.onset]
        scale = float(np.clip(amplitudes[reach.apex] - start, *HOLD))
        amplitudes = (amplitudes - start) / scale
        still = np.where(abs(amplitudes) <= STILL, 1.0, 0.0)
        moved = np.where(amplitudes >= MOVED, amplitudes, 0.0)
        if not moved.any():  # the apex frame's own fit fell short by more than HOLD allows
            moved[reach.apex] = 1.0
        steps.correct(scale, amplitudes, still, moved)
    return amplitudes


class _CpuSteps:
    """The steps for frames in NumPy."""

    def __init__(
        self, frames: NDArray[Any], chosen: NDArray[np.intp], levels: int, solver: Solver
    ) -> None:
        self._levels, self._solver = levels, solver
        self._count = len(chosen)
        self._shape = height, width = frames.shape[1:]
        self._frames = frames[chosen].astype(np.float32, order="C")
        self._room = cpu.workspace(height, width)
        self._bordered_size = cpu.bordered_size(height, width)
        self._bordered = np.empty(self._count * self._bordered_size, np.float32)
        for n, frame in enumerate(self._frames):
            cpu.add_border(frame, self._image(n))
        size = plane_size(height, width)
        self._planes = np.zeros(stack.PLANES * size, np.float32)
        self._warped, self._weights = np.zeros((2, self._count * size), np.float32)

    def _image(self, number: int) -> Floats:
        start = number * self._bordered_size
        return self._bordered[start : start + self._bordered_size]

    def begin(self, still: NDArray[np.intp], moved: NDArray[np.intp]) -> None:
        first, second = (self._frames[numbers].mean(axis=0) for numbers in (still, moved))
        solver = self._solver.smoother(FIRST_SMOOTHNESS)
        pair = prepare(first, self._levels), prepare(second, self._levels)
        self._flow = flow_of_pair(*pair, solver, self._room)
        self._sure = partial(confidence_of_pair, *pair, self._flow, solver, self._room)
        stack.fill_plane(first, self._planes, stack.REFERENCE)
        self._fill_flow()

    def _fill_flow(self) -> None:
        stack.fill_plane(self._flow[0], self._planes, stack.FLOW_X)
        stack.fill_plane(self._flow[1], self._planes, stack.FLOW_Y)

    def compare(self, amplitudes: Doubles) -> tuple[Doubles, float, Doubles]:
        squared = stack.fill_slope(self._planes, *self._shape)
        residual = np.empty(self._shape, np.float32)
        found = np.empty((2, self._count))
        for n, amplitude in enumerate(amplitudes.astype(np.float32)):
            found[0, n] = stack.compare(self._image(n), self._planes, amplitude, residual)
            found[1, n] = _median(residual)
        return found[0], float(squared), found[1]

    def correct(self, scale: float, amplitudes: Doubles, still: Doubles, moved: Doubles) -> None:
        self._flow *= np.float32(scale)
        self._fill_flow()
        single = amplitudes.astype(np.float32)
        stack.move(self._bordered, self._planes, single, *self._shape, self._warped)
        outlier = gaussian_taps(OUTLIER_RHO), np.float32(OUTLIER_LEVELS)
        stack.weigh(self._warped, self._count, *self._shape, *outlier, self._weights)
        mean, change = np.empty((2, *self._shape), np.float32)
        stack.combine(
            self._warped,
            self._weights,
            still.astype(np.float32),
            moved.astype(np.float32),
            *self._shape,
            self._planes,
            mean,
            change,
        )
        solver, before = self._solver, self._flow.copy()
        cpu.fit(
            mean,
            change,
            self._flow,
            self._room,
            np.float32(solver.alpha),
            gaussian_taps(solver.rho),
            solver.max_iterations,
            solver.tolerance,
        )
        self._fill_flow()
        step = self._flow - before
        self._sure = partial(confidence_of_fit, mean, change, step, self._flow, solver, self._room)

    def result(self, amplitudes: Floats, confidence: bool) -> CLGSequence:
        sure = self._sure() if confidence else None
        return CLGSequence(interleaved(self._flow), amplitudes, sure)


def _median(residual: Floats) -> float:
    """Return the median of the absolute values, of an even number the upper one."""
    values = abs(residual[::SAMPLING, ::SAMPLING]).ravel()
    return float(np.partition(values, values.size // 2)[values.size // 2])
