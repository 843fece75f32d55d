from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apexflow.engine.windows import Window

KEY_FRAMES = {"onset": 10, "apex": 16, "offset": 25}
INTERVAL = tuple(range(10, 26))


def steps(name: str, interval: tuple[int, ...] = INTERVAL) -> list[tuple[int, int]]:
    window = Window.parse(name)
    found = window.pairs(KEY_FRAMES, interval)
    if window.count is not None:
        assert len(found) == window.count
    return list(found)


def test_key_frames_in_a_row() -> None:
    assert steps("onset-apex") == [(10, 16)]
    assert steps("apex-offset") == [(16, 25)]
    assert steps("onset-apex-offset") == [(10, 16), (16, 25)]
    assert steps("onset-mid-apex-mid-offset") == [(10, 13), (13, 16), (16, 20), (20, 25)]
    assert steps("apex-onset") == [(16, 10)]


def test_the_middle_is_the_nearest_frame_there_is() -> None:
    gap = tuple(n for n in INTERVAL if n not in (12, 13, 14))
    assert steps("onset-mid-apex", gap) == [(10, 11), (11, 16)]


def test_steps_of_the_clip() -> None:
    assert steps("consecutive") == [(n, n + 1) for n in range(10, 25)]
    assert steps("consecutive", (10, 13, 14)) == [(10, 13), (13, 14)]
    assert steps("onset-every-4") == [(10, 14), (10, 18), (10, 22)]
    assert steps("onset-every-4", (10, 18, 25)) == [(10, 18)]
    assert steps("onset-every-99") == []


def test_a_fixed_number_of_steps() -> None:
    assert steps("steps-3") == [(10, 15), (15, 20), (20, 25)]
    assert steps("onset-steps-3") == [(10, 15), (10, 20), (10, 25)]
    assert steps("steps-1") == [(10, 25)]


@given(count=st.integers(1, 40), interval=st.lists(st.integers(1, 99), min_size=1, unique=True))
def test_equal_steps_go_from_end_to_end_for_clips_of_any_length(
    count: int, interval: list[int]
) -> None:
    numbers = tuple(sorted(interval))
    found = Window.parse(f"steps-{count}").pairs({}, numbers)
    assert len(found) == count
    assert (found[0][0], found[-1][1]) == (numbers[0], numbers[-1])
    assert all(a[1] == b[0] for a, b in pairwise(found))
    assert all(a <= b and {a, b} <= set(numbers) for a, b in found)


def test_what_a_window_needs() -> None:
    assert Window.parse("onset-mid-apex").key_frames == ("onset", "apex")
    assert Window.parse("onset-every-3").key_frames == ("onset",)
    assert Window.parse("consecutive").key_frames == ()
    assert Window.parse("steps-4").key_frames == ()
    assert Window.parse("onset-steps-4").key_frames == ("onset",)


@pytest.mark.parametrize(
    "name",
    [
        *("", "onset", "onset-", "onset-onset", "mid-apex", "onset-mid", "onset-mid-mid-apex"),
        *("steps-0", "steps", "onset-every-0", "onset-every--1", "onset-every-2.5", "Onset-apex"),
        *("consecutive-2", "onset-peak", "onset-steps-x"),
    ],
)
def test_other_names_are_no_windows(name: str) -> None:
    with pytest.raises(ValueError, match="is not a window; a window is key frames in a row"):
        Window.parse(name)
