"""By how many frames key frames are moved."""

from __future__ import annotations

from itertools import groupby, product

import numpy as np

Shift = tuple[int, int]
"""By how many frames the onset and the apex are moved; later is positive."""

# Shifts of one |shift| that are tested; there are 8, 16, 24, … of 1, 2, 3, … frames.
_MOST_OF_A_SIZE = 16


def shifts_within(frames: int) -> list[Shift]:
    """Return every shift of onset and apex by up to so many frames, that of none first."""
    steps = range(-frames, frames + 1)
    return sorted(product(steps, steps), key=lambda shift: (size_of(shift), shift))


def size_of(shift: Shift) -> int:
    """Return |shift|: by how many frames the key frame is moved that is moved most."""
    return max(map(abs, shift))


def shifts_to_test(frames: int) -> list[Shift]:
    """Return the shifts by up to so many frames that are looked at, always the same.

    All of 0, 1 and 2 frames; of more, as many of each |shift| as of 2, drawn at random.
    """
    rng = np.random.default_rng(0)
    found: list[Shift] = []
    for _, group in groupby(shifts_within(frames), key=size_of):
        same = list(group)
        if len(same) > _MOST_OF_A_SIZE:
            chosen = sorted(rng.choice(len(same), _MOST_OF_A_SIZE, replace=False))
            same = [same[i] for i in chosen]
        found += same
    return found
