"""The closed form against the published equations, solved as they are printed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apexflow.kernels import interpolate_frames
from apexflow.kernels.tim import interpolated_numbers


def published(frames: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Solve equations 1 to 9 of Zhou et al. 2011 with dense matrices; times within [1/n, 1].

    Needs frames that are linearly independent.
    """
    n = len(frames)
    pixels = frames.reshape(n, -1).T.astype(float)
    mean = pixels.mean(axis=1, keepdims=True)
    neighbours = np.eye(n, k=1) + np.eye(n, k=-1)
    laplacian = np.diag(neighbours.sum(axis=0)) - neighbours
    u, sizes, vt = np.linalg.svd(pixels - mean, full_matrices=False)
    u, q = u[:, : n - 1], sizes[: n - 1, None] * vt[: n - 1]
    values, vectors = np.linalg.eig(np.linalg.solve(q @ q.T, q @ laplacian @ q.T))
    vectors = vectors.real[:, np.argsort(values.real)]
    k = np.arange(1, n)[:, None]

    def curves(t: np.ndarray) -> np.ndarray:
        return np.sin(np.pi * k * t + np.pi * (n - k) / (2 * n))

    scales = (q[:, :1].T @ vectors).T / curves(np.array([1 / n]))
    made = u @ np.linalg.solve(vectors.T, scales * curves(times)) + mean
    return made.T.reshape(len(times), *frames.shape[1:])


@settings(max_examples=25)
@given(m=st.integers(2, 40), n=st.integers(2, 60), seed=st.integers(0, 9999))
def test_it_is_what_the_published_equations_give(m: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    frames = rng.uniform(0, 255, (m, 8, 9)).astype(np.float32)
    expected = published(frames, np.linspace(1 / m, 1, n))
    np.testing.assert_allclose(interpolate_frames(frames, n), expected, atol=2e-3)


@pytest.mark.parametrize("shape", [(7, 5, 6), (7, 5, 6, 3), (1, 4, 4), (2, 3, 3), (75, 40, 41)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_at_the_original_positions_the_frames_are_the_original_bytes(
    shape: tuple[int, ...], dtype: type
) -> None:
    frames = np.random.default_rng(1).uniform(0, 255, shape).astype(dtype)
    same = interpolate_frames(frames, len(frames))
    assert same.dtype == dtype
    assert same.tobytes() == frames.tobytes()
    doubled = interpolate_frames(frames, 2 * len(frames) - 1)
    assert doubled[::2].tobytes() == frames.tobytes()
    ends = interpolate_frames(frames, 2)
    assert ends[0].tobytes() == frames[0].tobytes()
    assert ends[1].tobytes() == frames[-1].tobytes()


def test_frames_that_are_alike_stay_alike_where_the_equations_have_no_solution() -> None:
    frames = np.full((6, 5, 5), 93, np.uint8)
    assert (interpolate_frames(frames, 11) == 93).all()
    frames[3] = 200  # two different frames among six
    made = interpolate_frames(frames.astype(np.float32), 11)
    assert (made[::2] == frames).all()


def test_a_steady_motion_stays_one() -> None:
    """A spot that moves by a third of a pixel a frame moves by a fifteenth a new one."""
    x = np.arange(64)
    frames = np.stack([np.exp(-(((x - 20 - t / 3) / 6) ** 2)) for t in range(31)])
    made = interpolate_frames(frames.astype(np.float32)[:, None], 151)[:, 0]
    centres = (made * x).sum(axis=1) / made.sum(axis=1)
    assert (np.diff(centres) > 0).all()
    # .05 frames at the ends, where the curve turns; a thousandth in the middle.
    off = abs(centres - np.linspace(20, 30, 151)) * 3
    assert off.max() < 0.06
    assert off[40:-40].max() < 0.003


def test_missing_frames_take_their_time() -> None:
    frames = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((2, 2), np.float32)
    numbers = [10, 11, 12, 18, 19]
    assert interpolated_numbers(numbers, 4).tolist() == [10, 13, 16, 19]
    made = interpolate_frames(frames, 10, numbers=numbers)[:, 0, 0]
    assert made[[0, 1, 2, 8, 9]].tolist() == [0, 1, 2, 3, 4]
    assert (np.diff(made[2:9]) > 0).all()


def test_one_of_many_is_the_middle() -> None:
    frames = np.random.default_rng(2).uniform(0, 255, (9, 4, 4)).astype(np.float32)
    assert (interpolate_frames(frames, 1)[0] == frames[4]).all()


def test_uint8_is_held_within_its_range() -> None:
    frames = np.zeros((6, 1, 16), np.uint8)
    frames[3:] = 255
    made = interpolate_frames(frames.astype(np.float32), 21)
    assert made.max() > 256
    held = interpolate_frames(frames, 21)
    assert (held == made.round().clip(0, 255)).all()


def test_what_is_mapped_from_disk_is_read_in_parts(tmp_path, monkeypatch) -> None:
    from apexflow.kernels import tim

    frames = np.random.default_rng(3).integers(0, 256, (5, 30, 7), np.uint8)
    whole = interpolate_frames(frames, 8)
    np.save(tmp_path / "frames.npy", frames)
    monkeypatch.setattr(tim, "_AT_A_TIME", 40)
    mapped = np.load(tmp_path / "frames.npy", mmap_mode="r")
    assert (interpolate_frames(mapped, 8) == whole).all()


@pytest.mark.parametrize(
    ("frames", "n", "numbers", "message"),
    [
        (np.zeros((0, 4, 4), np.uint8), 3, None, "frames must not be empty"),
        (np.zeros((3, 4, 4), np.int64), 3, None, "frames must be uint8 or float32"),
        (np.full((3, 4, 4), np.nan, np.float32), 3, None, "frames must be finite"),
        (np.zeros(3, np.uint8), 3, None, "frames must have"),
        (np.zeros((3, 4, 4), np.uint8), 0, None, "n must be at least 1"),
        (np.zeros((3, 4, 4), np.uint8), 2.5, None, "n must be an integer"),
        (np.zeros((3, 4, 4), np.uint8), 3, [1, 1, 2], "numbers must rise"),
        (np.zeros((3, 4, 4), np.uint8), 3, [1, 2], "numbers must be 3 integers"),
    ],
)
def test_bad_input_is_named(frames, n, numbers, message) -> None:
    with pytest.raises(ValueError, match=message):
        interpolate_frames(frames, n, numbers=numbers)
