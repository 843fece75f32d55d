"""Crops from a GPU against those that OpenCV cuts."""

from __future__ import annotations

from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apexflow.engine.clip.align import Pose, crop_matrix
from apexflow.engine.recipe import Crop
from apexflow.kernels import crop as kernels
from apexflow.kernels.crop import Interpolation
from apexflow.kernels.crop.gpu import resize_crops, to_gray, warp_crops
from apexflow.kernels.gpu import Device

INTERPOLATIONS = get_args(Interpolation)
SAMPLED = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def noise(seed: int, *shape: int) -> np.ndarray:
    """The hardest of images for an interpolation: any error of a place shows."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def assert_within_a_level(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).max() <= 1


def difference_apart_from_ties(
    got: np.ndarray, expected: np.ndarray, matrix: np.ndarray
) -> np.ndarray:
    """Levels, without the pixels whose nearest neighbour rounding decides."""
    y, x = np.mgrid[: got.shape[0], : got.shape[1]]
    places = np.einsum("ij,jyx->iyx", matrix, np.stack([x, y, np.ones_like(x)]))
    tie = (np.abs(places - np.floor(places) - 0.5) < 1e-3).any(axis=0)
    return np.where(tie, 0, np.abs(got.astype(int) - expected))


def warped(frame: np.ndarray, matrix: np.ndarray, crop: Crop) -> np.ndarray:
    size = crop.height, crop.width
    return kernels.warp_crops(frame[None], np.array([0]), matrix[None], size, crop.interpolation)[0]


@pytest.mark.addresses
@pytest.mark.parametrize("shape", [(1, 1), (3, 40, 31), (2, 3, 5)])
def test_gray_is_that_of_opencv(device: Device, shape: tuple[int, ...]) -> None:
    bgr = noise(0, *shape, 3)
    gray = device.to_host(to_gray(device.xp.asarray(bgr), device=device))
    flat = cv2.cvtColor(bgr.reshape(1, -1, 3), cv2.COLOR_BGR2GRAY)
    np.testing.assert_array_equal(gray, flat.reshape(shape))


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    return draw(st.integers(16, 70)), draw(st.integers(16, 70))


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@SAMPLED
@given(
    seed=st.integers(0, 2**32),
    channels=st.sampled_from([(), (3,)]),
    size=sizes(),
    start=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    sides=st.tuples(st.integers(1, 100), st.integers(1, 100)),
    multiple=st.sampled_from([0, 0, 1, 2]),
)
def test_resized_boxes_are_those_of_opencv(
    device: Device,
    interpolation: Any,
    seed: int,
    channels: Any,
    size: tuple[int, int],
    start: tuple[int, int],
    sides: tuple[int, int],
    multiple: int,
) -> None:
    frames = noise(seed, 2, 170, 165, *channels)
    if multiple:
        sides = min(multiple * size[1], 100), min(multiple * size[0], 100)
    x0, y0 = start
    boxes = np.array([[x0, y0, x0 + sides[0], y0 + sides[1]], [3, 5, 3 + size[1], 5 + size[0]]])
    numbers = np.array([1, 0])
    there = device.xp.asarray(frames)
    crops = resize_crops(there, numbers, boxes, size, interpolation, device=device)
    for got, number, box in zip(device.to_host(crops), numbers, boxes, strict=True):
        (expected,) = kernels.resize_crops(
            frames[number][None], np.array([0]), box[None], size, interpolation
        )
        assert_within_a_level(got, expected)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@SAMPLED
@given(
    seed=st.integers(0, 2**32),
    channels=st.sampled_from([(), (3,)]),
    size=sizes(),
    box=st.tuples(st.integers(-60, 60), st.integers(-60, 60)),
    sides=st.tuples(st.integers(16, 260), st.integers(16, 260)),
    pose=st.builds(
        Pose,
        dx=st.floats(-4, 4),
        dy=st.floats(-4, 4),
        rotation=st.floats(-4, 4),
        scale=st.floats(0.95, 1.05),
    ),
)
def test_warped_crops_are_those_of_opencv(
    device: Device,
    interpolation: Any,
    seed: int,
    channels: Any,
    size: tuple[int, int],
    box: tuple[int, int],
    sides: tuple[int, int],
    pose: Pose,
) -> None:
    """At any size, beyond the frame's borders, averaged over several pixels."""
    frames = noise(seed, 2, 150, 145, *channels)
    crop = Crop(height=size[0], width=size[1], interpolation=interpolation)
    region = box[0], box[1], box[0] + sides[0], box[1] + sides[1]
    matrices = np.stack(
        [crop_matrix(region, (70.5, 60), pose, crop), crop_matrix(region, (9, 8), Pose(), crop)]
    )
    numbers = np.array([1, 0])
    there = device.xp.asarray(frames)
    crops = warp_crops(there, numbers, matrices, size, interpolation, device=device)
    for got, number, matrix in zip(device.to_host(crops), numbers, matrices, strict=True):
        expected = warped(frames[number], matrix, crop)
        if interpolation == "nearest":
            assert difference_apart_from_ties(got, expected, matrix).max() == 0
        else:
            assert_within_a_level(got, expected)


@pytest.mark.addresses
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_crops_at_and_beyond_the_borders(device: Device, interpolation: Any) -> None:
    frames = noise(1, 3, 40, 50, 3)
    crop = Crop(height=16, width=20, interpolation=interpolation)
    boxes = np.array([[0, 0, 50, 40], [30, 24, 50, 40], [49, 39, 50, 40]])
    there = device.xp.asarray(frames)
    crops = resize_crops(there, np.arange(3), boxes, (16, 20), interpolation, device=device)
    for got, frame, box in zip(device.to_host(crops), frames, boxes, strict=True):
        (expected,) = kernels.resize_crops(
            frame[None], np.array([0]), box[None], (16, 20), interpolation
        )
        assert_within_a_level(got, expected)
    # The whole frame and around it, a corner, far outside on each side.
    regions = [(-9, -9, 59, 49), (45, 35, 65, 55), (-90, 3, -50, 40), (900, -1e4, 940, -1e4 + 30)]
    matrices = np.stack([crop_matrix(region, (25, 20), Pose(), crop) for region in regions])
    numbers = np.array([0, 1, 2, 0])
    crops = warp_crops(there, numbers, matrices, (16, 20), interpolation, device=device)
    for got, number, matrix in zip(device.to_host(crops), numbers, matrices, strict=True):
        expected = warped(frames[number], matrix, crop)
        assert difference_apart_from_ties(got, expected, matrix).max() <= 1


def test_a_crop_of_whole_pixels_is_the_frame(device: Device) -> None:
    frames = noise(2, 2, 40, 50)
    matrix = np.array([[1.0, 0, 7], [0, 1, 9]])
    for interpolation in INTERPOLATIONS:
        crops = warp_crops(
            device.xp.asarray(frames),
            np.array([0, 1]),
            np.stack([matrix] * 2),
            (20, 30),
            interpolation,
            device=device,
        )
        np.testing.assert_array_equal(device.to_host(crops), frames[:, 9:29, 7:37])


def test_bad_arguments_are_refused() -> None:
    frames, one = noise(3, 2, 40, 50), np.array([0])
    resize, warp = kernels.resize_crops, kernels.warp_crops
    box, matrix = np.array([[0, 0, 20, 20]]), np.zeros((1, 2, 3))
    refused = [
        (resize, one, box, "quadratic", "interpolation must be one of"),
        (resize, one + 2, box, "area", "numbers must be below 2. Got 2"),
        (
            kernels.resize_crops,
            one,
            box + 35,
            "area",
            r"boxes must lie inside frames of \(40, 50\)",
        ),
        (resize, one, box - 1, "area", r"Got \[-1, -1, 19, 19\]"),
        (resize, one, box[:, [2, 1, 0, 3]], "area", "boxes must lie inside"),
        (
            kernels.resize_crops,
            one,
            np.tile(box, (2, 1)),
            "area",
            "boxes must be one a crop, 1. Got 2",
        ),
        (warp, one - 1, matrix, "linear", "numbers must be below 2. Got -1"),
        (warp, one, matrix + np.nan, "linear", "matrices must be finite"),
        (
            kernels.warp_crops,
            one,
            np.zeros((3, 2, 3)),
            "linear",
            "matrices must be one a crop, 1. Got 3",
        ),
    ]
    for function, numbers, where, interpolation, message in refused:
        with pytest.raises(ValueError, match=message):
            function(frames, numbers, where, (16, 16), interpolation)
