from __future__ import annotations

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apexflow import synthetic
from apexflow.engine.clip.apex import CLEAR, apex_flags, estimate_apex

METHODS = ("middle", "difference", "flow")


def clip(
    seed: int, apex: int, frames: int = 24, amplitude: float = 1.0, shift: float = 3.0
) -> np.ndarray:
    """Aligned crops of a clip whose apex is known, with what whole-pixel alignment leaves."""
    person = synthetic.Subject.random(seed, size=(200, 240))
    truth = synthetic.ClipTruth(
        subject=person,
        motion=synthetic.Motion.random(frames, apex, seed=seed, shift=shift),
        expression=sorted(synthetic.EXPRESSIONS)[seed % len(synthetic.EXPRESSIONS)],
        amplitude=amplitude,
        apex=apex,
        noise_seed=seed,
    )
    images = synthetic.render(truth)
    x0, y0, x1, y1 = (int(value) for value in truth.box)
    crops = []
    for image, (dx, dy) in zip(images, np.rint(truth.shifts()).astype(int), strict=True):
        crops.append(cv2.resize(image[y0 + dy : y1 + dy, x0 + dx : x1 + dx], (112, 112)))
    return np.stack(crops)


def test_estimates_are_nearer_than_the_middle():
    rng = np.random.default_rng(5)
    errors: dict[str, list[int]] = {method: [] for method in METHODS}
    for seed in range(12):
        apex = int(rng.integers(4, 20))
        crops = clip(seed, apex)
        for method in METHODS:
            errors[method].append(abs(estimate_apex(crops, method=method).position - apex))
    mean = {method: np.mean(values) for method, values in errors.items()}
    assert mean["difference"] <= 2.0 < mean["middle"]
    assert mean["flow"] <= 1.5


def test_the_benchmark_runs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["apex.py", "--tiny"])
    script = Path(__file__).parents[3] / "benchmarks" / "apex.py"
    runpy.run_path(str(script), run_name="__main__")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 2 + 6  # a row a case and a bound, below each head


def test_the_confidence_is_what_one_half_finds_of_the_other():
    seeds = range(3)
    moving = [estimate_apex(clip(seed, 12), method="flow").confidence for seed in seeds]
    # Whole-pixel alignment would leave a shift, the same in many frames: a motion.
    unmoved = [clip(seed, 12, amplitude=0, shift=0) for seed in seeds]
    still = [estimate_apex(crops, method="flow").confidence for crops in unmoved]
    assert max(still) < CLEAR < min(moving)
    # A motion that goes on to the end has no peak.
    assert estimate_apex(clip(0, 12)[:11], method="flow").confidence == 0
    assert apex_flags(None) == apex_flags(CLEAR) == ()
    assert str(apex_flags(0.123)[0]) == "apex-unclear=0.123"


@given(
    shape=st.tuples(st.integers(1, 6), st.integers(8, 40), st.integers(8, 40)),
    seed=st.integers(0, 99),
    method=st.sampled_from(METHODS),
)
@settings(deadline=None, max_examples=40)
def test_any_crops_have_an_apex(shape, seed, method):
    frames = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    before = frames.copy()
    found, confidence = estimate_apex(frames, method=method)
    inner = range(1, shape[0] - 1) if shape[0] >= 3 else range(shape[0])
    assert found in inner
    assert 0 <= confidence <= 1
    assert np.array_equal(frames, before)


@pytest.mark.parametrize("method", METHODS)
def test_without_motion_the_middle_is_taken(method):
    still = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 32, 32), np.uint8), 9, axis=0)
    assert estimate_apex(still, method=method) == (4, 0)
    assert estimate_apex(np.full((6, 32, 32), 7, np.uint8), method=method) == (2, 0)


@pytest.mark.parametrize(
    "frames",
    [np.zeros((3, 4), np.uint8), np.zeros((3, 4, 4), np.float32), np.zeros((0, 4, 4), np.uint8)],
)
def test_other_arrays_are_refused(frames):
    with pytest.raises(ValueError, match=r"frames must be uint8 \(n, H, W\)"):
        estimate_apex(frames, method="flow")


def test_other_methods_are_refused():
    with pytest.raises(ValueError, match="method must be one of"):
        estimate_apex(np.zeros((3, 4, 4), np.uint8), method="last")
