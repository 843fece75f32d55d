"""One clip aligned in several ways: what a report shows before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.catalog import Clip
from apexflow.datasets.sources import Image
from apexflow.engine.clip import CPU
from apexflow.engine.clip.align import Aligner, Pose
from apexflow.engine.clip.faces import Box, FaceDetector, box_in_frame, make_detector
from apexflow.engine.clip.flow import flow_between
from apexflow.engine.clip.plan import plan_clip
from apexflow.engine.recipe import Recipe
from apexflow.engine.regions import in_crop, place_regions
from apexflow.errors import ClipError
from apexflow.kernels import normalize_light

PER_FRAME = "face found in each frame"
WHOLE_PIXELS = "template matching, whole pixels"
RECIPE = "this recipe"

# What expressions move least, to measure the motion that should not be there.
_STILL_REGIONS = ("nose", "forehead")


@dataclass(frozen=True, slots=True, eq=False)
class AlignedPair:
    """Onset and apex of a clip, aligned in one way.

    Attributes
    ----------
    name : str
        `PER_FRAME`, `WHOLE_PIXELS` or `RECIPE`.
    onset, apex : uint8 (height, width)
    flow : float32 (2, height, width)
        From the onset to the apex, in pixels of the crop.
    false_motion : float
        The median length of the flow where the face is still, in pixels of the crop.
    """

    name: str
    onset: Image
    apex: Image
    flow: NDArray[np.float32]
    false_motion: float

    @property
    def difference(self) -> Image:
        """The absolute difference of apex and onset: uint8 (height, width)."""
        wide = self.apex.astype(np.int16) - self.onset
        return np.abs(wide).astype(np.uint8)


def compare_alignments(
    clip: Clip,
    recipe: Recipe,
    *,
    still: NDArray[np.bool_] | None = None,
    detector: FaceDetector | None = None,
) -> tuple[AlignedPair, ...]:
    """Align onset and apex of a clip by a face found in each frame, as published, and as asked.

    Parameters
    ----------
    clip : Clip
        With its frames on disk, and onset and apex annotated.
    recipe : Recipe
        Whose box, crop and flow all three ways share.
    still : (height, width) bool, optional
        What the expression does not move, in the crop of the onset; nose and forehead when
        not given.
    detector : FaceDetector, optional
        In place of the recipe's.

    Returns
    -------
    tuple of AlignedPair
        `PER_FRAME`, `WHOLE_PIXELS`, `RECIPE`.

    Raises
    ------
    ClipError
        When the clip cannot be used.
    """
    if clip.onset is None or clip.apex is None:
        raise ClipError("comparing alignments needs an annotated onset and apex")
    pair = replace(recipe, windows=("onset-apex",), maps={})
    source, plan = plan_clip(clip, pair)
    numbers = sorted({plan.template, clip.onset, clip.apex})
    images = dict(zip(numbers, source.read(numbers, color=recipe.alignment.color), strict=True))
    found = detector or make_detector(recipe.face)
    face = found.detect(images[plan.template])
    box = box_in_frame(face, images[plan.template])
    mask = _still(recipe, box, face.landmarks) if still is None else still
    first, second = images[clip.onset], images[clip.apex]
    whole = replace(
        recipe,
        alignment=replace(recipe.alignment, method="integer"),
        crop=replace(recipe.crop, interpolation="linear"),
    )
    boxes = [box_in_frame(found.detect(image), image) for image in (first, second)]
    ways = {
        PER_FRAME: [_cut_box(i, b, whole) for i, b in zip((first, second), boxes, strict=True)],
        WHOLE_PIXELS: _aligned(images[plan.template], box, (first, second), whole),
        RECIPE: _aligned(images[plan.template], box, (first, second), recipe),
    }
    return tuple(_pair(name, crops, recipe, mask) for name, crops in ways.items())


def _aligned(template: Image, box: Box, images: Sequence[Image], recipe: Recipe) -> list[Image]:
    aligner = Aligner(template, box, recipe.alignment)
    stack = np.stack(images)
    return list(aligner.cut(stack, aligner.find(stack), [box], recipe.crop)[:, 0])


def _cut_box(image: Image, box: Box, recipe: Recipe) -> Image:
    aligner = Aligner(image, box, recipe.alignment)
    crops: Image = aligner.cut(image[None], [Pose()], [box], recipe.crop)
    return crops[0, 0]


def _pair(name: str, crops: list[Image], recipe: Recipe, still: NDArray[np.bool_]) -> AlignedPair:
    images: NDArray[Any] = np.stack(crops)
    if recipe.normalization.method != "none":
        images = normalize_light(images, **recipe.normalization.options)
    flow = flow_between(images, np.array([[0, 1]]), recipe.flow, CPU)[0]
    onset, apex = crops
    return AlignedPair(name, onset, apex, flow, float(np.median(np.hypot(*flow)[still])))


def _still(recipe: Recipe, box: Box, landmarks: Sequence[tuple[float, float]]) -> NDArray[np.bool_]:
    size = recipe.crop.height, recipe.crop.width
    mask = np.zeros(size, bool)
    for x0, y0, x1, y1 in in_crop(place_regions(_STILL_REGIONS, box, landmarks), box, size):
        mask[round(y0) : round(y1) + 1, round(x0) : round(x1) + 1] = True
    return mask
