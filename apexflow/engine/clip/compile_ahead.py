"""Compiling what a clip's flow and maps need while another process is still at its alignment.

On a fresh machine the kernels of the two halves take Numba about half a minute each. What one
process compiles the other finds in Numba's cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apexflow.catalog import Clip
from apexflow.engine.clip.backend import CPU
from apexflow.engine.clip.faces import Face, LocatedFace
from apexflow.engine.clip.flow import flow_of_regions, flow_of_windows, make_all_maps
from apexflow.engine.clip.light import normalize_frames
from apexflow.engine.clip.plan import plan_clip, with_apex
from apexflow.engine.clip.result import Aligned

if TYPE_CHECKING:
    from apexflow.engine.recipe import Recipe


def compile_flow(clip: Clip, recipe: Recipe) -> None:
    """Take the way of a clip from its crops on, with noise for crops.

    Raises `ClipError` as `plan_clip` does.
    """
    plan = plan_clip(clip, recipe)[1]
    aligned = _noise(plan.numbers, recipe)
    height, width = aligned.crops.shape[1:]
    box = (0, 0, width, height)
    located = LocatedFace(Face(box, (), 1.0), box, (box,) * len(recipe.regions.placed))
    plan = with_apex(plan, aligned.crops, recipe)
    images = normalize_frames(plan, aligned, recipe, CPU)
    flow, confidence = flow_of_windows(plan, images, recipe, CPU)
    roi = flow_of_regions(plan, images, flow, located, recipe, CPU)
    make_all_maps(flow, roi, confidence, located, recipe, CPU)


def _noise(numbers: tuple[int, ...], recipe: Recipe) -> Aligned:
    rng = np.random.default_rng(0)
    count, options = len(numbers), recipe.regions
    regions = None
    if options.names and options.source == "frames":
        shape = (count, len(options.names), options.height, options.width)
        regions = rng.integers(0, 256, shape, np.uint8)
    figures = np.zeros(count, np.float32)
    return Aligned(
        numbers=numbers,
        crops=rng.integers(0, 256, (count, recipe.crop.height, recipe.crop.width), np.uint8),
        shift=np.zeros((count, 2), np.float32),
        rotation=figures,
        scale=figures,
        score=figures,
        distance_to_margin=figures,
        regions=regions,
    )
