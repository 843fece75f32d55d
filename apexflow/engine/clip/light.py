"""The images that flow is computed between: crops, freed from their light where a recipe says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apexflow import kernels
from apexflow.engine.clip.backend import Backend
from apexflow.engine.clip.plan import ClipPlan, flow_frames
from apexflow.engine.clip.result import Aligned
from apexflow.kernels.gpu import to_host

if TYPE_CHECKING:
    from apexflow.engine.recipe import Normalization, Recipe

Images = NDArray[Any]
"""uint8 gray levels, or float32 where light was taken out."""

_FLOATS_PER_PIXEL = 6  # what the kernel reckons for itself


@dataclass(frozen=True, slots=True)
class FlowImages:
    """What flow is computed between.

    Attributes
    ----------
    numbers : tuple of int
        Frame numbers, ascending; n of them.
    crops : (n, height, width) uint8 or float32
    regions : (n, region, height, width) uint8 or float32, or None
        As in `Aligned`.
    """

    numbers: tuple[int, ...]
    crops: Images
    regions: Images | None


def normalize_frames(
    plan: ClipPlan, aligned: Aligned, recipe: Recipe, backend: Backend
) -> FlowImages:
    """Return the aligned crops, or those that flow needs without their light."""
    if recipe.normalization.method == "none":
        return FlowImages(aligned.numbers, aligned.crops, aligned.regions)
    needed = sorted({number for pair in flow_frames(plan, recipe) for number in pair.numbers})
    rows = [aligned.numbers.index(number) for number in needed]
    regions = aligned.regions
    return FlowImages(
        tuple(needed),
        _normalized(aligned.crops[rows], recipe.normalization, backend),
        None if regions is None else _normalized(regions[rows], recipe.normalization, backend),
    )


def _normalized(
    images: NDArray[np.uint8], recipe: Normalization, backend: Backend
) -> NDArray[np.float32]:
    """Return images (…, height, width) without their light."""
    flat = images.reshape(-1, *images.shape[-2:])

    def normalize_batch(part: slice) -> NDArray[np.float32]:
        return to_host(kernels.normalize_light(backend.put(flat[part]), **recipe.options))

    if not len(flat):
        return np.zeros(images.shape, np.float32)
    each = 4 * _FLOATS_PER_PIXEL * flat[0].size
    return np.concatenate(backend.batches(normalize_batch, len(flat), each)).reshape(images.shape)
