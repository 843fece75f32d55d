"""A clip read and its face found, with as much of each frame as all that follows needs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from apexflow.catalog import Clip
from apexflow.engine.align import Box, crop_reach, search_region
from apexflow.engine.encoded import EncodedFrames, read_encoded
from apexflow.engine.faces import Face, make_detector
from apexflow.engine.frames import Image
from apexflow.engine.process import (
    CPU,
    ClipPlan,
    Clock,
    Place,
    file_names,
    locate,
    plan_clip,
    read_frames,
    read_template,
)
from apexflow.engine.recipe import Recipe

MOST_BYTES = 256 << 20
"""The most that one prepared clip may hold: six hundred frames as SAMM's are searched."""

# Beyond the search region, in parts of the box's longer side: what the corners of a box move
# that is turned by 4 degrees, or enlarged by 7%.
_TILT = 0.035


@dataclass(frozen=True, slots=True)
class PreparedClip:
    """Everything of a clip that is needed to align it.

    Attributes
    ----------
    clip : Clip
    plan : ClipPlan
    place : Place
        In pixels of the template frame.
    files : tuple of str
        The image file of each frame.
    stack : uint8 (n, h, w) or (n, h, w, 3), or EncodedFrames
        The same part of each frame, in the order of the plan; or that a card is to decode.
    origin : (x, y)
        Where the part lies in the frames.
    frame_size : (height, width)
        Of a whole frame.
    seconds : dict of stage to float
    face_device : str
        What found the face.
    """

    clip: Clip
    plan: ClipPlan
    place: Place
    files: tuple[str, ...]
    stack: Image | EncodedFrames
    origin: tuple[int, int]
    frame_size: tuple[int, int]
    seconds: dict[str, float]
    face_device: str = CPU


def prepare_clip(
    clip: Clip,
    recipe: Recipe,
    *,
    face: Face | None = None,
    face_device: str = CPU,
    encoded: bool = False,
) -> PreparedClip | None:
    """Decode a clip and find its face, but where ``face`` is what a card has found.

    With ``encoded``, frames that are JPEG files are left to a card to decode. Returns None when
    the clip is too long to be held at once. Raises `ClipError` as `process_clip` does.
    """
    clock = Clock()
    source, plan = plan_clip(clip, recipe)
    with clock("decode"):
        template_frame = read_template(source, plan, recipe)
    with clock("detect"):
        if face is None:
            face, face_device = make_detector(recipe.face).detect(template_frame), CPU
        place = locate(clip, recipe, template_frame, face)
    height, width = template_frame.shape[:2]
    rows, columns = needed_part(place.box, (height, width), recipe)
    part = template_frame[rows, columns]
    if part.nbytes * len(plan.numbers) > MOST_BYTES:
        return None
    stack: Image | EncodedFrames | None = None
    if encoded:
        with clock("decode"):
            stack = read_encoded(source, plan.numbers, rows, columns, color=part.ndim == 3)
    if stack is None:
        stack = np.empty((len(plan.numbers), *part.shape), np.uint8)
        frames = read_frames(source, plan, recipe, template_frame, clock)
        for held, frame in zip(stack, frames, strict=True):
            held[:] = frame[rows, columns]
    return PreparedClip(
        clip,
        plan,
        place,
        file_names(source, plan),
        stack,
        (columns.start, rows.start),
        (height, width),
        clock.seconds,
        face_device,
    )


def needed_part(box: Box, frame_size: tuple[int, int], recipe: Recipe) -> tuple[slice, slice]:
    """Return the rows and columns of a frame that the search and the crops look at.

    Shifts reach as far as the recipe's margin; rotation and scale are thought to stay within a
    few degrees and percent, and whoever cuts the crops has to see that they did.
    """
    if recipe.alignment.method not in ("subpixel", "similarity"):
        return search_region(box, frame_size, recipe.alignment)
    width, height = box[2] - box[0], box[3] - box[1]
    enlargement = max(width / recipe.crop.width, height / recipe.crop.height)
    reach = crop_reach(enlargement) + _TILT * max(width, height)
    return search_region(box, frame_size, recipe.alignment, beyond=math.ceil(reach) + 1)
