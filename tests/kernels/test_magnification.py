"""Magnified clips against the same clips with a motion 1 + alpha times as large."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.fft import dct, idct

from apexflow.kernels import clg, magnify_eulerian, magnify_flow, normalize_light
from apexflow.kernels.magnification.band import Band
from apexflow.kernels.magnification.eulerian import levels_within_bound
from apexflow.kernels.spline import sample, spline

RATE = 100.0
COUNT = 33
AT = np.arange(COUNT)


def course(t: np.ndarray) -> np.ndarray:
    """An expression that comes and goes: 0 at the first frame, 1 in the middle."""
    return (1 - np.cos(2 * np.pi * t / (COUNT - 1))) / 2


def scene(dx: float, dy: float = 0.0, *, wavelength: float = 24.0, size=(72, 96)) -> np.ndarray:
    """A pattern that is known between its pixels, moved: float64 gray levels."""
    y, x = np.mgrid[: size[0], : size[1]].astype(float)
    x, y, turn = x - dx, y - dy, 2 * np.pi / wavelength
    return 120 + 40 * np.sin(turn * x) * np.cos(turn * 0.8 * y) + 25 * np.cos(turn * (x + y) / 1.7)


def clip(motion: float, *, wavelength: float = 24.0, noise: float = 0.0) -> np.ndarray:
    frames = np.stack([scene(motion * c, wavelength=wavelength) for c in course(AT)])
    frames += np.random.default_rng(0).normal(0, noise, frames.shape) if noise else 0
    return frames.astype(np.float32)


def measured(frames: np.ndarray, number: int = COUNT // 2) -> float:
    """Median motion in x from the first frame to one, in px."""
    flow = clg(*(normalize_light(frames[n]) for n in (0, number)))
    return float(np.median(flow[12:-12, 12:-12, 0]))


@pytest.mark.parametrize(("motion", "alpha"), [(0.05, 4), (0.08, 9), (0.03, 20)])
def test_eulerian_motion_within_the_bound_is_enlarged(motion: float, alpha: float) -> None:
    result = magnify_eulerian(clip(motion, wavelength=16), alpha, rate=RATE, high=25)
    assert not result.beyond_bound
    assert result.motion == pytest.approx(motion, rel=0.15)
    assert measured(result.frames) == pytest.approx((1 + alpha) * motion, rel=0.1)
    assert measured(result.frames, COUNT // 4) == pytest.approx(
        (1 + alpha) * motion * course(COUNT // 4), rel=0.1
    )


@pytest.mark.parametrize(("motion", "alpha"), [(0.05, 4), (0.1, 9), (0.5, 4), (0.3, 20)])
@pytest.mark.parametrize("rate", [None, RATE])
def test_motion_by_flow_is_enlarged(motion: float, alpha: float, rate: float | None) -> None:
    frames = clip(motion)
    result = magnify_flow(frames, alpha, rate=rate, high=25)
    assert result.folded == 0
    assert measured(result.frames) == pytest.approx((1 + alpha) * motion, rel=0.06)
    enlarged = scene((1 + alpha) * motion)
    off = abs(result.frames[COUNT // 2] - enlarged)[16:-16, 16:-16]
    assert off.mean() < 0.06 * abs(enlarged - frames[0]).mean()


def test_each_level_is_amplified_by_what_the_bound_allows() -> None:
    levels = levels_within_bound((224, 224), 10, 0.25)
    assert [level.wavelength for level in levels] == [5, 10, 20, 40, 80]
    for level in levels:
        assert 0 <= level.alpha <= 10
        # As published: alpha where (1 + alpha) delta < lambda / 8, else what makes them equal.
        within = level.wavelength / 8 >= (1 + 10) * 0.25
        assert (level.alpha == 10) == within
        if not within:
            assert (1 + level.alpha) * 0.25 == pytest.approx(level.wavelength / 8)
    assert [level.alpha for level in levels_within_bound((224, 224), 10, 0.0)] == [10] * 5
    assert levels_within_bound((224, 224), 10, 1.0)[0].alpha == 0  # less than none


def test_motion_beyond_the_bound_is_said() -> None:
    result = magnify_eulerian(clip(1.5), 20, rate=RATE, high=25)
    assert result.beyond_bound
    assert result.attenuated == result.levels
    # A wavelength of 2 px has no chance against 1 px of motion, and is left as it is.
    fine = magnify_eulerian(clip(0.1), 20, rate=RATE, high=25, motion=1.0)
    assert fine.levels[0].alpha == 0


def test_what_is_outside_of_the_band_is_not_amplified() -> None:
    t = AT / RATE
    slow = np.stack([scene(0.1 * np.cos(np.pi * 1.5 * s)) for s in t]).astype(np.float32)
    fast = magnify_eulerian(slow, 10, rate=RATE, low=20, high=40)
    assert abs(fast.frames - slow).max() < 2.5  # of 40 gray levels of contrast; ends of the clip
    assert abs(magnify_eulerian(slow, 10, rate=RATE, low=1, high=40).frames - slow).max() > 10


def test_the_band_is_the_cosine_transform_of_the_pixels() -> None:
    frames = np.random.default_rng(4).uniform(0, 255, (20, 16, 17)).astype(np.float32)
    spectrum = dct(frames.astype(float), axis=0)
    hertz = np.arange(20) * 50 / 40
    spectrum[((hertz < 4) | (hertz > 11)) & (hertz > 0)] = 0
    band = Band(frames, AT[:20], 50, 4, 11)
    made = np.stack([band.frame(n) for n in range(20)])
    np.testing.assert_allclose(made, idct(spectrum, axis=0), atol=2e-3)


@pytest.mark.parametrize("method", ["eulerian", "flow"])
def test_missing_frames_keep_their_time(method: str) -> None:
    kept = np.delete(AT, [5, 6, 20])
    magnify = magnify_eulerian if method == "eulerian" else magnify_flow
    whole = magnify(clip(0.1), 6, rate=RATE, high=25).frames
    part = magnify(clip(0.1)[kept], 6, rate=RATE, high=25, numbers=kept + 40).frames
    assert abs(part - whole[kept]).mean() < 0.2
    with pytest.raises(ValueError, match="numbers must miss no more frames"):
        magnify(clip(0.1), 6, rate=RATE, numbers=3 * AT)


@pytest.mark.parametrize("colour", [False, True])
def test_the_reference_stays_and_so_do_dtype_and_colour(colour: bool) -> None:
    frames = clip(0.2, noise=1).clip(0, 255).astype(np.uint8)
    frames = np.stack([frames, frames[:, ::-1], 255 - frames], -1) if colour else frames
    for result in (
        magnify_eulerian(frames, 5, rate=RATE, reference=3, high=25),
        magnify_flow(frames, 5, reference=3),
    ):
        assert result.frames.dtype == np.uint8
        assert result.frames.shape == frames.shape
        assert (result.frames[3] == frames[3]).all()
        assert (result.frames[16] != frames[16]).any()


@pytest.mark.parametrize("frames", [clip(0.0), clip(0.3)[:1], np.full((4, 20, 31), 90, np.uint8)])
def test_where_nothing_moves_nothing_changes(frames: np.ndarray) -> None:
    for result in (magnify_eulerian(frames, 10, rate=RATE, high=25), magnify_flow(frames, 10)):
        np.testing.assert_allclose(result.frames, frames, atol=1e-3)
        assert result.motion == pytest.approx(0, abs=1e-4)


def test_light_alone_moves_nothing() -> None:
    lamp = (1 + 0.05 * course(AT))[:, None, None]
    frames = (clip(0.0) * lamp).astype(np.float32)
    result = magnify_eulerian(frames, 10, rate=RATE, high=25)
    # Of 5% of 120 gray levels, ten times, the levels of the pyramid hold next to nothing.
    assert abs(result.frames - frames).mean() < 0.5 * 10 * abs(frames - frames[0]).mean()
    assert abs(measured(magnify_flow(frames, 10).frames)) < 0.05


def test_a_picture_that_would_fold_is_said() -> None:
    y, x = np.mgrid[:80, :96].astype(float)
    bump = np.exp(-(((x - 48) / 9) ** 2) - ((y - 40) / 9) ** 2)
    texture = np.random.default_rng(5).normal(128, 40, (80, 96)).astype(np.float32)
    texture = cv2.GaussianBlur(texture, (0, 0), 2) * 3 - 256
    moved = sample(spline(texture), np.stack([x - 1.5 * bump, y], -1))
    result = magnify_flow(np.stack([texture, moved]), 20)
    assert 0.001 < result.folded < 0.3
    assert magnify_flow(np.stack([texture, moved]), 1).folded == 0


class Read:
    """Frames that are made when they are read."""

    def __init__(self, frames: np.ndarray) -> None:
        self._frames, self.reads = frames, 0

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, number: int) -> np.ndarray:
        self.reads += 1
        return self._frames[number].copy()


def test_frames_may_be_read_one_by_one_and_written_elsewhere(tmp_path) -> None:
    frames = clip(0.2).clip(0, 255).astype(np.uint8)
    out = np.lib.format.open_memmap(tmp_path / "o.npy", "w+", np.uint8, frames.shape)
    for magnify in (magnify_eulerian, magnify_flow):
        whole = magnify(frames, 5, rate=RATE).frames
        result = magnify(Read(frames), 5, rate=RATE, out=out)
        assert result.frames is out
        assert (whole == out).all()
        with pytest.raises(ValueError, match="out must be a NumPy array, uint8"):
            magnify(frames, 5, rate=RATE, out=np.empty(frames.shape))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -1}, "alpha must be at least 0"),
        ({"alpha": float("nan")}, "alpha must be a finite number"),
        ({"rate": 0}, "rate must be above 0"),
        ({"low": 5, "high": 5}, "high must be above 5"),
        ({"reference": COUNT}, "reference must be at most"),
        ({"low": 0.1, "high": 0.2}, "low and high must have a frequency of the clip between them"),
        ({"frames": np.zeros((3, 15, 40), np.uint8)}, "at least 16x16"),
        ({"frames": 3}, "frames must be a sequence of images"),
        (
            {"frames": [np.zeros((20, 20), np.uint8), np.zeros((20, 21), np.uint8)], "high": 25},
            "shape",
        ),
        ({"frames": []}, "frames must be a sequence of images, one at least"),
    ],
)
@pytest.mark.parametrize("magnify", [magnify_eulerian, magnify_flow])
def test_bad_input_is_named(magnify, options, message) -> None:
    given = {"frames": clip(0.1), "alpha": 4, "rate": RATE} | options
    with pytest.raises(ValueError, match=message):
        magnify(given.pop("frames"), given.pop("alpha"), **given)
