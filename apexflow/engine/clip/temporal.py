"""Which frames the flow of a pair is drawn from.

==========  =======================================================================
`temporal`  the flow of a pair
==========  =======================================================================
pair        between its two frames
mean        between the means over the frames around each of the two
sequence    by `apexflow.kernels.clg_sequence` where both frames are key frames of the
            clip (onset, apex, offset), or lie as far apart as the reach, and 4 frames at
            least; between means elsewhere
==========  =======================================================================

Around a key frame the expression rests or turns: the frames beside it say the same, and where
the clip ends at one they lie on one side alone. Any other frame lies on the way:
a mean that is not even on both sides would be that of another moment. No frame counts to the
farther of the two, so that steps from frame to frame are always drawn from two frames.

`temporal.frames` bounds how many frames, the nearest ones, stand for each of the two: what a recipe
that reads no other frames pays for. Nearest is better than spread over the reach: with 5 for each
.039 px in drifting light against .043, and where nothing moves .018 against .027; with all .037 and
.014.
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

LEAST_APART = 4
"""Frames from one end of a step to the other, for its flow to be drawn from all within reach.

Steps on the flank as long as the reach, 8 frames, err by .024 px in the place of .034 (means), and
their peaks are right to 9%. Of small motions over 2 to 4 frames the sequence doubles the peak: the
frames around move farther than the step does.
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
        """All that are needed."""
        return frozenset((*self.pair, *(self.sequence or (*self.first, *self.second))))


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
    if temporal.frames:
        near = min(near, temporal.frames // 2)  # both neighbours, so that a mean stays even
    means = [_around(number, near, interval, even=number not in keys) for number in pair]
    many: Numbers = ()
    if temporal.method == "sequence" and _has_sequence(pair, keys, reach):
        many = _many(pair, interval, temporal, reach)
    return PairFrames(pair, means[0], means[1], many)


def _has_sequence(pair: FramePair, keys: frozenset[int], reach: int) -> bool:
    """Whether the flow of a pair may be drawn from all frames within reach."""
    apart = abs(pair[1] - pair[0])
    return reach > 0 and apart > 0 and (set(pair) <= keys or apart >= max(reach, LEAST_APART))


def _many(pair: FramePair, interval: Sequence[int], temporal: Temporal, reach: int) -> Numbers:
    """Return the frames within reach of the two, none of which counts to the farther one."""
    first, second = pair
    from_both = [(n, abs(n - first), abs(n - second)) for n in interval]
    near_first = [n for n, a, b in from_both if a <= min(reach, b)]
    near_second = [n for n, a, b in from_both if b <= reach and b < a]
    most = temporal.frames
    return tuple(sorted((*_nearest(near_first, first, most), *_nearest(near_second, second, most))))


def _nearest(numbers: Sequence[int], to: int, most: int) -> Numbers:
    """Return the numbers nearest to one, at most so many; 0 is all."""
    ranked = sorted(numbers, key=lambda number: (abs(number - to), number))
    return tuple(sorted(ranked[: most or None]))


def _around(number: int, reach: int, interval: Sequence[int], *, even: bool) -> Numbers:
    """Return the frames up to ``reach`` from one; if ``even``, those with a partner opposite."""
    near = {n for n in interval if abs(n - number) <= reach} | {number}
    return tuple(sorted(n for n in near if not even or 2 * number - n in near))
