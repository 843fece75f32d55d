"""Alignment, measured against known motion."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from apexflow import synthetic
from apexflow.engine.clip.align import Aligner, Pose, crop_matrix
from apexflow.engine.clip.faces import Box
from apexflow.engine.recipe import Crop, Recipe
from apexflow.kernels import farneback

RECIPE = Recipe.load("default")
CROP = RECIPE.crop
SIZE = CROP.height, CROP.width


@dataclass(frozen=True, eq=False)
class Filmed:
    """A clip as a camera and JPEG give it: noise, changing light, an expression."""

    truth: synthetic.ClipTruth
    frames: dict[int, NDArray[np.uint8]]
    template: int
    box: Box

    def aligner(self, method: str) -> Aligner:
        recipe = replace(RECIPE.alignment, method=method)
        return Aligner(self.frames[self.template], self.box, recipe)

    def ideal(self, frame: int) -> NDArray[np.float64]:
        """The map from crop to frame of a camera fixed to the head."""
        (turn, offset), (turn_0, offset_0) = (self._head(i) for i in (frame, self.template))
        crop = synthetic.crop_matrix(self.box, SIZE)
        linear = turn @ np.linalg.inv(turn_0)
        return np.column_stack([linear @ crop[:, :2], linear @ (crop[:, 2] - offset_0) + offset])

    def _head(self, frame: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        motion, centre = self.truth.motion, np.array(self.truth.subject.centre)
        angle = np.deg2rad(motion.rotation[frame])
        c, s = motion.scale[frame] * np.cos(angle), motion.scale[frame] * np.sin(angle)
        turn = np.array([[c, -s], [s, c]])
        return turn, centre + motion.shift[frame] - turn @ centre


def cut(
    aligner: Aligner, frame: NDArray[np.uint8], region: Any, pose: Pose, crop: Crop
) -> NDArray[np.uint8]:
    return aligner.cut(frame[None], [pose], [region], crop)[0, 0]


def film(*, rotation: float = 0.0, scale: float = 0.0) -> Iterator[Filmed]:
    for truth in synthetic.plan_samm(
        subjects=4,
        clips=5,
        frames=15,
        size=(720, 760),
        face=0.7,
        rotation=rotation,
        scale=scale,
        seed=4,
        faulty=False,
    ):
        template = len(truth) // 2
        face = synthetic.paint(truth.subject)
        chosen = {0, 3, template, truth.apex, len(truth) - 1}
        frames = {i: through_jpeg(synthetic.take(truth, i, face)) for i in sorted(chosen)}
        corners = np.add(truth.subject.box, np.tile(truth.motion.shift[template], 2))
        x0, y0, x1, y1 = (int(value) for value in corners)
        yield Filmed(truth, frames, template, (x0, y0, x1, y1))


def through_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))


@pytest.fixture(scope="module")
def shifted() -> list[Filmed]:
    return list(film())


@pytest.fixture(scope="module")
def turned() -> list[Filmed]:
    return list(film(rotation=1.0, scale=0.01))


@pytest.mark.parametrize("method", ["subpixel", "similarity"])
def test_the_shift_is_found_to_a_25th_of_a_pixel(shifted: list[Filmed], method: str) -> None:
    whole, found, truth = [], [], []
    for clip in shifted:
        aligner, integer = clip.aligner(method), clip.aligner("integer")
        shifts = clip.truth.shifts(clip.template)
        for i, frame in clip.frames.items():
            if i != clip.template:
                (pose,), (plain,) = aligner.find(frame[None]), integer.find(frame[None])
                found.append((pose.dx, pose.dy))
                whole.append((plain.dx, plain.dy))
                truth.append(shifts[i])
                assert pose.score == plain.score
    assert synthetic.shift_error(found, truth) <= 0.04
    assert synthetic.shift_error(whole, truth) > 0.25  # what whole pixels leave


def test_turning_heads_are_held_to_a_tenth_of_a_pixel_of_the_crop(turned: list[Filmed]) -> None:
    for clip in turned:
        aligner = clip.aligner("similarity")
        for i, frame in clip.frames.items():
            if i == clip.template:
                continue
            first = clip.ideal(i)
            y, x = np.nonzero(clip.truth.still(clip.ideal(0), SIZE))
            still = np.stack([x, y, np.ones_like(x)])
            middle = (clip.box[0] + clip.box[2] - 1) / 2, (clip.box[1] + clip.box[3] - 1) / 2
            matrix = crop_matrix(clip.box, middle, aligner.find(frame[None])[0], CROP)
            residual = np.linalg.inv(first[:, :2]) @ ((matrix - first) @ still)
            assert np.hypot(*residual).mean() < 0.1


def test_false_motion_is_5_times_below_the_published_way(
    shifted: list[Filmed], turned: list[Filmed]
) -> None:
    published = replace(CROP, interpolation="linear")
    for clips in (shifted, turned):
        scores = {"integer": [], "similarity": []}
        for clip in clips:
            onset, apex = clip.truth.onset, clip.truth.apex
            still = clip.truth.still(clip.ideal(onset), SIZE)
            for method, crop in (("integer", published), ("similarity", CROP)):
                aligner = clip.aligner(method)
                first, second = (
                    cut(aligner, frame, clip.box, aligner.find(frame[None])[0], crop)
                    for frame in (clip.frames[onset], clip.frames[apex])
                )
                scores[method].append(synthetic.false_motion(farneback(first, second), still))
        assert np.mean(scores["similarity"]) * 5 < np.mean(scores["integer"])


@pytest.mark.parametrize("interpolation", ["linear", "cubic", "area", "lanczos4", "nearest"])
def test_whole_pixels_are_cut_and_resized_as_published(interpolation: str) -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (90, 120, 3), np.uint8)
    crop = replace(CROP, height=40, width=50, interpolation=interpolation)
    aligner = Aligner(frame, (20, 10, 100, 70), replace(RECIPE.alignment, method="integer"))
    flag = getattr(cv2, f"INTER_{interpolation.upper()}")
    expected = cv2.cvtColor(
        cv2.resize(frame[13:73, 15:95], (50, 40), interpolation=flag), cv2.COLOR_BGR2GRAY
    )
    found = cut(aligner, frame, (20, 10, 100, 70), Pose(-5, 3), crop)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("interpolation", ["linear", "area", "cubic"])
@pytest.mark.parametrize("size", [(224, 224), (60, 90), (300, 500)])
def test_one_interpolation_puts_each_pixel_where_the_matrix_says(
    interpolation: str, size: tuple[int, int]
) -> None:
    """On a ramp every interpolation and average is exact: pixels tell their own place."""
    y, x = np.mgrid[:400, :500]
    region, box = (60.5, 70.25, 340.0, 300.0), (50, 60, 360, 320)
    pose = Pose(3.3, -2.6, 1.0, rotation=2.0, scale=1.02)
    crop = replace(CROP, height=size[0], width=size[1], interpolation=interpolation)
    middle = (box[0] + box[2] - 1) / 2, (box[1] + box[3] - 1) / 2
    grid = np.stack([*np.mgrid[: size[0], : size[1]][::-1], np.ones(size)]).reshape(3, -1)
    where = (crop_matrix(region, middle, pose, crop) @ grid).reshape(2, *size)
    for plane, expected in zip((x, y), where, strict=True):
        frame = (plane // 2).astype(np.uint8)
        aligner = Aligner(frame, box, replace(RECIPE.alignment, method="similarity"))
        found = cut(aligner, frame, region, pose, crop)
        assert found.shape == size
        # Half of 2 gray levels' step for the ramp's stairs, and half a level of rounding.
        assert np.abs(found - (expected - 0.5) / 2).max() < 1.01


def test_the_matrix_without_motion_is_that_of_a_resize() -> None:
    box = (20, 30, 120, 180)
    np.testing.assert_allclose(
        crop_matrix(box, (69.5, 104.5), Pose(), CROP), synthetic.crop_matrix(box, SIZE), atol=1e-9
    )


def test_a_crop_that_shrinks_has_no_aliasing() -> None:
    """Stripes finer than a crop's pixel are gray in it, not stripes of another width."""
    frame = np.full((480, 480), 60, np.uint8)
    frame[:, ::2] = 200
    small = replace(CROP, height=64, width=64)
    seen = {}
    for interpolation in ("area", "linear"):
        aligner = Aligner(frame, (40, 40, 400, 400), replace(RECIPE.alignment, method="subpixel"))
        crop = replace(small, interpolation=interpolation)
        seen[interpolation] = cut(aligner, frame, (40, 40, 400, 400), Pose(0.3, 0.2), crop).std()
    assert seen["area"] < 0.35 * seen["linear"]


def test_a_region_at_the_frame_s_edge_is_continued() -> None:
    frame = np.random.default_rng(1).integers(0, 256, (64, 80), np.uint8)
    aligner = Aligner(frame, (0, 0, 80, 64), replace(RECIPE.alignment, method="similarity"))
    found = cut(aligner, frame, (0, 0, 80, 64), Pose(9.5, -7.5, rotation=5), CROP)
    assert found.shape == SIZE


def test_the_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[3] / "benchmarks" / "alignment.py"
    spec = importlib.util.spec_from_file_location("alignment_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = script  # where its dataclass looks for its annotations
    spec.loader.exec_module(script)
    script.INTERPOLATIONS = ("area",)
    samples = list(
        script.make_samples(
            clips=1, frames=5, size=(160, 200), rotation=1.0, scale=0.01, detect=False
        )
    )
    script.print_position_table(samples)
    script.print_flow_table(samples)
    script.print_cost_table(samples[0])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split("|")[1:-1] for line in lines if line.startswith("| similarity")]
    assert [len(row) for row in rows] == [3, 2, 3]
    assert all(float(row[-1].split(",")[-1].split()[-1]) >= 0 for row in rows)


def moving_patch(shift: tuple[int, int]) -> NDArray[np.uint8]:
    """A frame of 300 x 400 in which a face of 80 x 60 at (150, 110) has moved."""
    rng = np.random.default_rng(5)
    frame = cv2.GaussianBlur(rng.normal(120, 200, (300, 400)), (0, 0), 4)
    face = cv2.GaussianBlur(np.random.default_rng(6).normal(120, 400, (60, 80)), (0, 0), 3)
    x, y = 150 + shift[0], 110 + shift[1]
    frame[y : y + 60, x : x + 80] = face
    return np.clip(np.rint(frame), 0, 255).astype(np.uint8)


BOX = (150, 110, 230, 170)


@pytest.mark.parametrize("shift", [(0, 0), (39, -40), (41, 0), (-75, 60), (115, -105)])
def test_a_head_is_followed_beyond_the_margin(shift: tuple[int, int]) -> None:
    recipe = replace(RECIPE.alignment, method="integer")
    aligner = Aligner(moving_patch((0, 0)), BOX, recipe)
    (pose,) = aligner.find(moving_patch(shift)[None])
    assert (pose.dx, pose.dy) == shift
    assert pose.score > 0.999
    # To the ends of the search: 40 px and the box's 80 px, or the frame's edges.
    ends = (120 + shift[0], 110 + shift[1], 120 - shift[0], 120 - shift[1])
    assert pose.distance_to_margin == min(ends)


@pytest.mark.parametrize(("shift", "distance"), [((10, -3), 30), ((40, 0), 0), ((47, 0), 0)])
def test_without_following_a_face_stops_at_the_margin(
    shift: tuple[int, int], distance: float
) -> None:
    recipe = replace(RECIPE.alignment, method="integer", follow=0.0)
    smooth = cv2.GaussianBlur(moving_patch((0, 0)), (0, 0), 12)
    moved = cv2.warpAffine(
        smooth, np.array([[1.0, 0, shift[0]], [0, 1.0, shift[1]]]), (400, 300), borderMode=2
    )
    (pose,) = Aligner(smooth, BOX, recipe).find(moved[None])
    assert pose.distance_to_margin == distance
    assert pose.dx == min(shift[0], 40)


def test_sides_without_room_are_no_margin() -> None:
    frame = moving_patch((0, 0))
    whole = (0, 0, 400, 300)
    recipe = replace(RECIPE.alignment, method="integer")
    assert Aligner(frame, whole, recipe).find(frame[None])[0].distance_to_margin == np.inf
    at_left = Aligner(frame, (0, 100, 80, 160), recipe).find(frame[None])[0]
    assert at_left.distance_to_margin == 100  # up to the frame's edge
    none = replace(recipe, method="none")
    assert Aligner(frame, BOX, none).template_pose.distance_to_margin == np.inf
