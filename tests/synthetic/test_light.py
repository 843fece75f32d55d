"""Light, open shutters and blinks: known changes of a picture beside the expression's motion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage

from apexflow import synthetic
from apexflow.synthetic import BLINK, Light, sampling

FRAMES = 21


@pytest.fixture(scope="module")
def truth() -> synthetic.ClipTruth:
    person = synthetic.Subject.random(3, size=(160, 200))
    made = synthetic.ClipTruth.random(
        person, "happiness", seed=3, frames=FRAMES, amplitude=1.5, shift=2.0, noise=0.0
    )
    motion = replace(made.motion, gain=np.ones(FRAMES), drift=np.zeros(FRAMES))
    return replace(made, motion=motion)


def gain(truth: synthetic.ClipTruth, light: Light, frame: int) -> np.ndarray:
    """Light of a frame over that of the same frame in even light."""
    scene = np.full((1, *truth.subject.size), 100, np.float32)
    subject = truth.subject
    lit = light.shine(scene, frame, FRAMES, subject.centre, 0.5 * subject.face_height)
    return lit[0] / 100


def test_even_light_changes_nothing(truth: synthetic.ClipTruth) -> None:
    face = synthetic.paint(truth.subject)
    lit = replace(truth, light=Light(seed=5))
    for frame in (0, 10):
        np.testing.assert_array_equal(
            synthetic.take(truth, frame, face), synthetic.take(lit, frame, face)
        )
    np.testing.assert_array_equal(gain(truth, Light(), 7), 1)


def test_drifting_light_is_a_smooth_wave_of_its_amplitude(truth: synthetic.ClipTruth) -> None:
    gains = np.stack([gain(truth, Light(drift=0.04, seed=1), frame) for frame in range(FRAMES)])
    assert np.abs(gains - 1).max() <= 0.04 + 1e-6
    assert np.ptp(gains) > 0.06
    assert np.abs(np.diff(gains, axis=1)).max() < 0.003  # from pixel to pixel
    assert np.abs(np.diff(gains, axis=0)).max() < 0.04 * 2 * np.pi * 1.3 / (FRAMES - 1) + 1e-6
    assert (gain(truth, Light(drift=0.04, seed=2), 3) != gains[3]).any()


def test_flicker_is_one_gain_a_frame(truth: synthetic.ClipTruth) -> None:
    gains = np.stack([gain(truth, Light(flicker=0.05), frame) for frame in range(FRAMES)])
    assert np.ptp(gains, axis=(1, 2)).max() < 1e-6
    assert np.abs(gains - 1).max() <= 0.05 + 1e-6
    assert gains[:, 0, 0].std() > 0.02


def test_light_from_the_side_and_gamma_come_over_the_clip(truth: synthetic.ClipTruth) -> None:
    side = Light(side=0.1)
    np.testing.assert_allclose(gain(truth, side, 0), 1)
    middle = gain(truth, side, FRAMES // 2)
    np.testing.assert_allclose(middle[:, [0, -1]], [[0.9, 1.1]] * len(middle), atol=1e-6)
    x = round(truth.subject.centre[0])
    np.testing.assert_allclose(middle[:, x], 1, atol=0.001)
    gamma = gain(truth, Light(gamma=1.15), FRAMES // 2)
    np.testing.assert_allclose(gamma, 255 * (100 / 255) ** 1.15 / 100, rtol=1e-5)


def test_a_vignette_darkens_the_corners_alike_in_every_frame(truth: synthetic.ClipTruth) -> None:
    first, last = (gain(truth, Light(vignette=0.3), frame) for frame in (0, FRAMES - 1))
    np.testing.assert_array_equal(first, last)
    np.testing.assert_allclose(first[[0, 0, -1, -1], [0, -1, 0, -1]], 0.7, atol=1e-6)
    assert first[80, 100] > 0.999


@pytest.mark.parametrize(
    "options", [{"drift": -0.1}, {"flicker": 1.0}, {"vignette": 2}, {"gamma": 0}]
)
def test_light_that_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Light(**options)


def test_an_open_shutter_is_the_mean_of_what_passes(truth: synthetic.ClipTruth) -> None:
    face = synthetic.paint(truth.subject)
    frame, shutter = 6, 0.8
    blurred = synthetic.expose(replace(truth, shutter=shutter), frame, face)
    motion = truth.motion
    moments = []
    for k in range(5):
        part = shutter * ((k + 0.5) / 5 - 0.5)
        other = frame + (1 if part > 0 else -1)
        mixed = {
            name: getattr(motion, name)
            + abs(part) * (getattr(motion, name)[other] - getattr(motion, name)[frame])
            for name in ("shift", "rotation", "scale", "intensity")
        }
        moments.append(
            synthetic.expose(replace(truth, motion=replace(motion, **mixed)), frame, face)
        )
    np.testing.assert_allclose(blurred, np.mean(moments, axis=0), atol=1e-3)
    sharp = synthetic.expose(truth, frame, face)
    assert np.abs(blurred - sharp).max() > 0.05
    np.testing.assert_allclose(replace(truth, shutter=shutter).flow(), truth.flow())


def test_a_blink_covers_the_eyes_and_nothing_else(truth: synthetic.ClipTruth) -> None:
    blinking = replace(truth, blinks=(12,))
    height, eyes = truth.subject.face_height, truth.subject.landmarks[:2]
    seen = blinking.flow_at(eyes, 0, 12)
    assert np.isnan(seen).all()  # under the lid
    assert np.isfinite(blinking.flow_at(eyes, 12, 0)).all()  # what is seen then is the lid
    assert (blinking.flow_at(eyes, 12, 0)[:, 1] < -0.02 * height).all()
    lids = eyes - [0, 0.04 * height]
    moved = blinking.flow_at(lids, 0, 12) - truth.flow_at(lids, 0, 12)
    assert (moved[:, 1] > 0.03 * height).all()
    np.testing.assert_allclose(moved[:, 0], 0, atol=0.05)
    elsewhere = np.vstack([truth.subject.landmarks[2:], eyes - [0, 0.2 * height]])
    np.testing.assert_allclose(blinking.flow_at(elsewhere, 0, 12), truth.flow_at(elsewhere, 0, 12))
    for frame in (12 - BLINK, 12 + BLINK):
        np.testing.assert_allclose(blinking.flow(0, frame), truth.flow(0, frame))
    at_apex = replace(truth, blinks=(truth.apex,))
    np.testing.assert_allclose(
        at_apex.expression_at(eyes), truth.expression_at(eyes)
    )  # no expression, and no place that is not still


def test_the_truth_of_a_blink_is_where_its_pixels_come_from(truth: synthetic.ClipTruth) -> None:
    """Half closed: each pixel shows what its truth says, and what is covered is nowhere."""
    blinking = replace(truth, blinks=(12 + BLINK // 2,))
    before, after = (
        synthetic.render(blinking, [frame], noisy=False)[0].astype(float) for frame in (0, 12)
    )
    (left, _), (_, low) = blinking.subject.landmarks[0], blinking.subject.landmarks[1]
    x, y = np.meshgrid(np.arange(left - 20, left + 21), np.arange(low - 30, low + 31))
    points = np.stack([x, y], axis=-1)
    back = points + blinking.flow_at(points, 12, 0)
    shown, seen = (
        cv2.remap(image, *np.float32(np.moveaxis(at, -1, 0)), cv2.INTER_CUBIC)
        for image, at in ((before, back), (after, points))
    )
    rest = seen - shown
    inside = np.abs(x - left) < 15
    assert np.median(np.abs(rest[inside])) < 1.5
    hidden = np.isnan(blinking.flow_at(points, 0, 12)).any(axis=-1)
    assert 0 < hidden.mean() < 0.5
    again = back + blinking.flow_at(back, 0, 12)
    found = np.isfinite(again).all(axis=-1)
    assert found.mean() > 0.95  # at the lid's edge rounding decides
    np.testing.assert_allclose(again[found], points[found], atol=1e-3)


def test_frames_are_the_face_read_where_it_lies_and_nothing_else(
    truth: synthetic.ClipTruth,
) -> None:
    """SciPy's spline at the exact inverse: no picture is resampled twice."""
    face = synthetic.paint(truth.subject)
    for frame in (4, truth.apex):
        y, x = np.indices(truth.subject.size).astype(np.float64)
        seen = np.stack([x, y], axis=-1)
        material = seen + truth.flow_at(seen, frame, frame)
        material = truth._trace(material.reshape(-1, 2), frame).reshape(seen.shape)
        places = np.moveaxis(material[..., ::-1] + sampling.MARGIN, -1, 0)
        expected = ndimage.map_coordinates(face[0], places, order=3, prefilter=False)
        exposed = synthetic.expose(truth, frame, face)[0]
        np.testing.assert_allclose(exposed, expected, atol=0.02)
        # The inverse undoes the motion to a hundred-thousandth of a pixel.
        back = truth._see(material.reshape(-1, 2), frame).reshape(seen.shape)
        np.testing.assert_allclose(back, seen, atol=2e-5)


def test_a_data_set_has_light_shutter_and_blinks_of_its_own(tmp_path: Path) -> None:
    options = {"subjects": 1, "clips": 2, "frames": 9, "size": (96, 120), "faulty": False}
    plain = synthetic.plan_samm(**options)
    lit = synthetic.plan_samm(**options, light=Light(drift=0.05), shutter=0.5, blinks=True)
    for before, after in zip(plain, lit, strict=True):
        assert (before.light, before.shutter, before.blinks) == (Light(), 0.0, ())
        assert (after.light.drift, after.shutter, len(after.blinks)) == (0.05, 0.5, 1)
        np.testing.assert_array_equal(before.motion.shift, after.motion.shift)
    assert lit[0].light.seed != lit[1].light.seed
    synthetic.write_samm(tmp_path, **options, light=Light(side=0.2), workers=1)
    assert len(list(tmp_path.rglob("*.jpg"))) == 18
