"""Which frames the flow of a pair is drawn from.

==========  =======================================================================
`temporal`  the flow of a pair
==========  =======================================================================
pair        between its two frames
mean        between the means over the frames around each of the two
sequence    by `apexflow.kernels.clg_sequence` where both frames are key frames of the
            clip (onset, apex, offset); between means elsewhere
==========  =======================================================================

Around a key frame the expression rests or turns: the frames beside it say the same, and where
the clip ends at one they lie on one side alone. Any other frame lies on the way:
a mean that is not even on both sides would be that of another moment. No frame counts to the
farther of the two, so that steps from frame to frame are always drawn from two frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apexflow.engine.windows import FramePair

if TYPE_CHECKING:
    from apexflow.engine.recipe import Temporal

MEAN_PART = 4
"""A mean takes the frames within this part of the reach: 10 ms, 2 frames at 200 frames/s.

False motion is then 37% less than from two frames, and peaks are 2% lower; with 2 frames at
60 frames/s peaks are 21% lower (benchmarks/motion.py, drifting light).
"""

Numbers = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PairFrames:
    """The numbers of the frames that the flow of a pair is drawn from.

    Attributes
    ----------
    pair : (int, int)
    first, second : tuple of int
        The frames whose means the flow leads from and to.
    sequence : tuple of int
        All frames within reach, for the flow of many frames; empty where that does not apply.
    """

    pair: FramePair
    first: Numbers
    second: Numbers
    sequence: Numbers = ()

    @property
    def numbers(self) -> frozenset[int]:
        """All of them."""
        return frozenset((*self.pair, *self.first, *self.second, *self.sequence))


def frame_reach(temporal: Temporal, rate: float | None) -> int:
    """Return how many frames on each side a flow may be drawn from.

    Parameters
    ----------
    temporal : Temporal
    rate : float or None
        Frames/s of the clip; None where it is not known.
    """
    if temporal.method == "pair":
        return 0
    if rate is None:
        return temporal.reach_frames
    return round(temporal.reach_ms * rate / 1000)


def frames_of_pairs(
    pairs: Iterable[FramePair],
    key_frames: Mapping[str, int],
    interval: Sequence[int],
    temporal: Temporal,
    reach: int,
) -> tuple[PairFrames, ...]:
    """Return what the flow of each pair is drawn from.

    Parameters
    ----------
    pairs : iterable of (int, int)
    key_frames : dict of name to int
    interval : sequence of int
        The numbers of the clip's frames from onset to offset.
    temporal : Temporal
    reach : int
        As `frame_reach` gives it.
    """
    keys = frozenset(key_frames.values())
    return tuple(_frames_of(pair, keys, interval, temporal, reach) for pair in pairs)


def _frames_of(
    pair: FramePair,
    keys: frozenset[int],
    interval: Sequence[int],
    temporal: Temporal,
    reach: int,
) -> PairFrames:
    first, second = pair
    near = min(reach // MEAN_PART, (abs(second - first) - 1) // 2)
    means = [_around(number, near, interval, even=number not in keys) for number in pair]
    many: Numbers = ()
    if temporal.method == "sequence" and reach and first != second and set(pair) <= keys:
        many = tuple(n for n in interval if min(abs(n - first), abs(n - second)) <= reach)
    return PairFrames(pair, means[0], means[1], many)


def _around(number: int, reach: int, interval: Sequence[int], *, even: bool) -> Numbers:
    """Return the frames up to ``reach`` from one; if ``even``, those with a partner opposite."""
    near = {n for n in interval if abs(n - number) <= reach} | {number}
    return tuple(sorted(n for n in near if not even or 2 * number - n in near))
