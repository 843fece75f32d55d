from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from apexflow.kernels.register import Placement, Registration
from apexflow.kernels.register.robust import FALLING, fit_motion

SEEDS = st.integers(0, 2**32 - 1)


class Scene:
    """Smooth random light, known everywhere: a sum of waves of 8 px and longer."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._waves = [
            (rng.uniform(0, 2 * np.pi), rng.uniform(0, 2 * np.pi), 2 * np.pi / rng.uniform(8, 60))
            for _ in range(24)
        ]

    def at(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        total = sum(
            np.sin(rate * (np.cos(angle) * x + np.sin(angle) * y) + phase)
            for angle, phase, rate in self._waves
        )
        return 128 + 15 * np.asarray(total)


def picture(
    scene: Scene,
    size: tuple[int, int],
    *,
    middle: tuple[float, float],
    shift: tuple[float, float] = (0, 0),
    rotation: float = 0.0,
    scale: float = 1.0,
    gain: float = 1.0,
    drift: float = 0.0,
    noise: float = 0.0,
    deform: tuple[float, float, float, float] | None = None,
) -> NDArray[np.uint8]:
    """A scene moved about ``middle``; ``deform`` moves a disc (x, y, radius) sideways."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    # Where the pixel was before the motion: the inverse of a turn about the middle.
    u, v = x - middle[0] - shift[0], y - middle[1] - shift[1]
    a = np.deg2rad(rotation)
    sx = (np.cos(a) * u + np.sin(a) * v) / scale + middle[0]
    sy = (-np.sin(a) * u + np.cos(a) * v) / scale + middle[1]
    if deform is not None:
        dx, dy, radius, amount = deform
        inside = np.clip(1 - ((sx - dx) ** 2 + (sy - dy) ** 2) / radius**2, 0, 1) ** 2
        sx = sx - amount * inside
    light = gain * scene.at(sx, sy) + drift
    light += noise * np.random.default_rng(1).standard_normal(size)
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def test_a_shift_is_found_through_noise_light_and_the_deformation_of_a_third() -> None:
    size, middle = (240, 260), (129.5, 119.5)
    errors = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        shift = tuple(rng.uniform(-0.5, 0.5, 2))
        template = picture(Scene(seed), size, middle=middle, noise=2)[20:220, 20:240]
        moved = picture(
            Scene(seed),
            size,
            middle=middle,
            shift=shift,
            gain=1.02,
            drift=-4,
            noise=2,
            deform=(130, 170, 70, 3.0),
        )
        found = Registration(template).locate(moved, middle)
        errors.append(np.subtract((found.x, found.y), np.add(middle, shift)))
        assert (found.rotation, found.scale) == (0.0, 1.0)
    assert np.sqrt(np.mean(np.sum(np.square(errors), axis=1))) < 0.03


def test_a_fit_of_the_whole_template_would_be_pulled_along() -> None:
    """The reason for blocks: the same scene, one least-squares shift, is off by ten times."""
    size, middle = (240, 260), (129.5, 119.5)
    still = picture(Scene(3), size, middle=middle)
    moved = picture(Scene(3), size, middle=middle, deform=(130, 170, 70, 3.0))
    gy, gx = np.gradient(still.astype(np.float64))
    inside = (slice(20, 220), slice(20, 240))
    gradients = np.stack([gx[inside].ravel(), gy[inside].ravel()], axis=1)
    change = (still.astype(np.float64) - moved)[inside].ravel()
    pulled = np.linalg.lstsq(gradients, change, rcond=None)[0]
    found = Registration(still[inside]).locate(moved, middle)
    error = np.hypot(found.x - middle[0], found.y - middle[1])
    assert np.hypot(*pulled) > 0.1
    assert error < 0.1 * np.hypot(*pulled)


@given(
    seed=SEEDS,
    shift=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    rotation=st.floats(-1.5, 1.5),
    scale=st.floats(0.985, 1.015),
    side=st.integers(90, 290),
)
@settings(max_examples=15, deadline=None)
def test_rotation_and_scale_are_found(
    seed: int, shift: tuple[float, float], rotation: float, scale: float, side: int
) -> None:
    margin = 20
    middle = (margin + (side - 1) / 2, margin + (side + 7) / 2)
    size = (side + 8 + 2 * margin, side + 2 * margin)
    scene = Scene(seed)
    template = picture(scene, size, middle=middle, noise=1)
    template = template[margin : margin + side + 8, margin : margin + side]
    moved = picture(
        scene, size, middle=middle, shift=shift, rotation=rotation, scale=scale, noise=1
    )
    found = Registration(template, model="similarity").locate(moved, middle)
    assert abs(found.x - middle[0] - shift[0]) < 0.06
    assert abs(found.y - middle[1] - shift[1]) < 0.06
    # Of the rim: half the side times the angle.
    assert np.deg2rad(abs(found.rotation - rotation)) * side / 2 < 0.12
    assert abs(found.scale - scale) * side / 2 < 0.12


@given(seed=SEEDS, height=st.integers(16, 70), width=st.integers(16, 70))
@settings(max_examples=20, deadline=None)
def test_small_and_odd_templates(seed: int, height: int, width: int) -> None:
    middle = (9 + (width - 1) / 2, 9 + (height - 1) / 2)
    size = (height + 18, width + 18)
    template = picture(Scene(seed), size, middle=middle)[9:-9, 9:-9]
    moved = picture(Scene(seed), size, middle=middle, shift=(0.4, -0.3))
    before = template.copy(), moved.copy()
    for array in (template, moved):
        array.flags.writeable = False
    wide = np.repeat(moved, 2, axis=1)[:, ::2]
    found = Registration(template).locate(moved, middle)
    # The smallest are one to four blocks, which may all lie where the scene is flat.
    allowed = 0.1 if min(height, width) >= 28 else 0.45
    assert abs(found.x - middle[0] - 0.4) < allowed
    assert abs(found.y - middle[1] + 0.3) < allowed
    assert Registration(np.asfortranarray(template)).locate(wide, middle) == found
    np.testing.assert_array_equal(template, before[0])
    np.testing.assert_array_equal(moved, before[1])


@pytest.mark.parametrize("model", ["shift", "similarity"])
def test_what_is_flat_or_out_of_sight_stays_at_the_start(model: str) -> None:
    flat = np.full((64, 64), 90, np.uint8)
    scene = picture(Scene(1), (64, 64), middle=(32, 32))
    start = Placement(31.5, 31.5)
    assert Registration(flat, model=model).locate(scene, (31.5, 31.5)) == start
    far = Registration(scene, model=model).locate(scene, (400.0, -300.0))
    assert far == Placement(400.0, -300.0)


def test_a_template_at_the_border_is_located_by_its_blocks_inside() -> None:
    middle = (99.5, 89.5)
    still = picture(Scene(5), (180, 200), middle=middle)
    moved = picture(Scene(5), (180, 200), middle=middle, shift=(0.6, 0.3))
    found = Registration(still).locate(moved, middle)
    assert abs(found.x - middle[0] - 0.6) < 0.03
    assert abs(found.y - middle[1] - 0.3) < 0.03


@given(seed=SEEDS, similarity=st.booleans(), outliers=st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_the_fit_is_exact_whatever_a_minority_says(
    seed: int, similarity: bool, outliers: int
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-100, 100, (40, 2))
    p = np.append(rng.uniform(-1, 1, 2), rng.uniform(-0.01, 0.01, 2) if similarity else (0, 0))
    x, y = points.T
    steps = np.stack([p[0] + p[2] * x - p[3] * y, p[1] + p[3] * x + p[2] * y], axis=1)
    steps[:outliers] += rng.uniform(2, 9, (outliers, 2))
    found = fit_motion(points, steps, rng.uniform(0.5, 1, 40), similarity, 12, np.empty(0))
    np.testing.assert_allclose(found, p, atol=1e-6)


@pytest.mark.parametrize("similarity", [False, True])
def test_a_large_expression_pulls_less_when_the_reach_falls(similarity: bool) -> None:
    """Seven blocks of ten move with the skin, more of them by little than by much."""
    off: dict[tuple[float, ...], list[float]] = {(): [], FALLING: []}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        points = rng.uniform(-100, 100, (80, 2))
        steps = rng.normal(0, 0.01, (80, 2))
        steps[:56] += 1.5 * rng.uniform(0, 1, (56, 1)) ** 2 * np.array([0.3, 1.0])
        weights = rng.uniform(300, 900, 80)
        for falling, errors in off.items():
            p = fit_motion(points, steps, weights, similarity, 4, np.array(falling))
            errors.append(float(np.hypot(p[0], p[1])))
    assert np.mean(off[FALLING]) < 0.02
    assert np.mean(off[FALLING]) < 0.6 * np.mean(off[()])


def test_no_block_is_left_out_for_what_noise_does_to_it() -> None:
    """Weak blocks scatter by more than the last reach; together they still fix the place."""
    rng = np.random.default_rng(5)
    points, weights = rng.uniform(-100, 100, (60, 2)), np.full(60, 10.0)
    steps = rng.normal(0, 0.28, (60, 2)) + np.array([0.2, -0.1])
    p = fit_motion(points, steps, weights, False, 4, np.array(FALLING))
    np.testing.assert_allclose(p[:2], steps.mean(axis=0), atol=0.05)


def test_the_fit_without_outliers_is_weighted_least_squares() -> None:
    """With errors far below its scale the biweight changes nothing."""
    rng = np.random.default_rng(2)
    points, weights = rng.uniform(-50, 50, (30, 2)), rng.uniform(0.5, 2, 30)
    steps = rng.normal(0, 1e-4, (30, 2)) + np.array([0.3, -0.2])
    x, y = points.T
    zero, one = np.zeros(30), np.ones(30)
    matrix = np.concatenate(
        [np.stack([one, zero, x, -y], axis=1), np.stack([zero, one, y, x], axis=1)]
    )
    root = np.sqrt(np.tile(weights, 2))[:, None]
    expected = np.linalg.lstsq(root * matrix, root[:, 0] * steps.T.ravel(), rcond=None)[0]
    found = fit_motion(points, steps, weights, True, 4, np.empty(0))
    np.testing.assert_allclose(found, expected, atol=1e-8)


@pytest.mark.parametrize(
    ("template", "match"),
    [
        (np.zeros((15, 40), np.uint8), "at least 16x16"),
        (np.zeros((40, 40), np.float32), "template must be uint8"),
        (np.zeros((40, 40, 3), np.uint8), "2 dimensions"),
    ],
)
def test_bad_templates_are_refused(template: NDArray[np.generic], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Registration(template)


def test_bad_arguments_are_refused() -> None:
    template = np.zeros((40, 40), np.uint8)
    with pytest.raises(ValueError, match=r"model must be one of .* Got 'affine'"):
        Registration(template, model="affine")
    with pytest.raises(ValueError, match=r"reach must be one of .* Got 'rising'"):
        Registration(template, reach="rising")
    with pytest.raises(ValueError, match="image must be uint8"):
        Registration(template).locate(template.astype(np.int32), (20, 20))
    with pytest.raises(ValueError, match="start must be a finite number"):
        Registration(template).locate(template, (np.nan, 20))


def test_cv2_agrees_about_the_sign_of_a_rotation() -> None:
    """cv2.getRotationMatrix2D turns counter-clockwise for positive angles."""
    still = picture(Scene(9), (200, 200), middle=(99.5, 99.5))
    turn = cv2.getRotationMatrix2D((99.5, 99.5), -1.0, 1.01)
    moved = cv2.warpAffine(still, turn, (200, 200), flags=cv2.INTER_LINEAR)
    template = still[30:170, 30:170]
    found = Registration(template, model="similarity").locate(moved, (99.5, 99.5))
    assert abs(found.rotation - 1.0) < 0.05
    assert abs(found.scale - 1.01) < 0.001


LOCATE = """
import hashlib
import cv2, numpy as np
from apexflow.kernels import Registration

noise = np.random.default_rng(0).integers(0, 256, (400, 400), dtype=np.uint8)
image = cv2.GaussianBlur(noise, (0, 0), 2)
found = []
for model in ("shift", "similarity"):
    registration = Registration(image[40:360, 40:360], model=model)
    for i in range(12):
        turn = cv2.getRotationMatrix2D((200, 200), 0.1 * i, 1 + 0.001 * i)
        moved = cv2.warpAffine(image, turn, (400, 400))
        found.append(registration.locate(moved, (199.5, 199.5)))
print(hashlib.sha256(np.array(found).tobytes()).hexdigest())
"""


def test_compiled_anew_or_read_from_the_cache_the_bits_are_the_same(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", LOCATE]
    first, second = (subprocess.check_output(command, env=environment) for _ in range(2))
    assert first == second
