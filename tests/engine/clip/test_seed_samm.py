"""The recipe seed-samm against the published workflow, written with OpenCV alone."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from apexflow.catalog import Catalog, Clip
from apexflow.datasets import read_samm
from apexflow.engine.clip import process_clip
from apexflow.engine.clip.faces import FixedBox
from apexflow.engine.recipe import Recipe
from apexflow.synthetic import write_samm

BOX = (60, 30, 140, 130)
Image = NDArray[np.uint8]


def opencv_alignment(folder: Path) -> tuple[list[tuple[int, int]], list[bool], list[Image]]:
    """Return positions, whether each is the only maximum, and the 224x224 crops."""
    x0, y0, x1, y1 = BOX
    files = sorted(folder.glob("*.jpg"))
    template = cv2.imread(str(files[len(files) // 2]))[y0:y1, x0:x1]
    positions, unique, crops = [], [], []
    for file in files:
        frame = cv2.imread(str(file))
        height, width = frame.shape[:2]
        left, top = max(0, x0 - 40), max(0, y0 - 40)
        region = frame[top : min(height, y1 + 40), left : min(width, x1 + 40)]
        scores = cv2.matchTemplate(region, template, cv2.TM_CCOEFF_NORMED)
        _, best, _, (x, y) = cv2.minMaxLoc(scores)
        positions.append((left + x, top + y))
        unique.append(int((scores >= best - 1e-5).sum()) == 1)
        crop = frame[top + y : top + y + y1 - y0, left + x : left + x + x1 - x0]
        crops.append(cv2.resize(crop, (224, 224)))
    return positions, unique, crops


def opencv_map(onset: Image, apex: Image) -> Image:
    """Return the 28x28 RGB map of two gray crops."""
    flow = cv2.calcOpticalFlowFarneback(onset, apex, None, 0.5, 3, 15, 3, 5, 1.2, 0)
    magnitude, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1], angleInDegrees=True)
    hsv = np.zeros((*onset.shape, 3), np.uint8)
    hsv[..., 0] = angle / 2
    hsv[..., 1] = 255
    hsv[..., 2] = cv2.normalize(magnitude, None, 0, 255, cv2.NORM_MINMAX)
    rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    return cv2.resize(rgb, (28, 28), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    root = tmp_path_factory.mktemp("seed")
    write_samm(root, subjects=2, clips=3, frames=9, size=(160, 200), shift=25, faulty=False)
    return read_samm(root)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return Recipe.load("seed-samm")


@pytest.mark.parametrize("index", range(3))
def test_positions_crops_and_maps_are_the_published_workflows(
    clips: Catalog, recipe: Recipe, index: int
) -> None:
    clip: Clip = clips[index]
    result = process_clip(clip, recipe, detector=FixedBox(BOX))
    positions, unique, crops = opencv_alignment(clip.path)
    shift = result.aligned.shift.astype(int)
    found = [(BOX[0] + dx, BOX[1] + dy) for dx, dy in shift.tolist()]
    assert sum(unique) > len(unique) // 2
    assert len(set(positions)) > 1
    for ours, theirs, only in zip(found, positions, unique, strict=True):
        assert ours == theirs or not only
    if found == positions:
        gray = [cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY) for crop in crops]
        np.testing.assert_array_equal(result.aligned.crops, gray)
    assert clip.onset is not None
    assert clip.apex is not None
    onset, apex = (result.aligned.crop(number) for number in (clip.onset, clip.apex))
    np.testing.assert_array_equal(result.maps["hsv"], opencv_map(onset, apex))


def test_every_file_of_the_folder_is_aligned_and_the_middle_one_is_the_template(
    clips: Catalog, recipe: Recipe
) -> None:
    clip = clips[0]
    extra = clip.path / "006_99999.jpg"
    first = sorted(clip.path.glob("*.jpg"))[0]
    extra.write_bytes(first.read_bytes())
    try:
        result = process_clip(clip, recipe, detector=FixedBox(BOX))
    finally:
        extra.unlink()
    assert result.aligned.numbers[-1] == 99999
    assert len(result.aligned.numbers) == 10
    assert result.plan.template == result.aligned.numbers[5]
