"""The interval of a clip as so many frames as a recipe asks for, evenly spaced in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from apexflow import kernels
from apexflow.datasets.sources import Image
from apexflow.engine.clip.plan import ClipPlan
from apexflow.engine.clip.result import Aligned
from apexflow.kernels.tim import interpolated_numbers

if TYPE_CHECKING:
    from apexflow.engine.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Interpolated:
    """The frames of a clip's interval, interpolated.

    Attributes
    ----------
    crops : uint8 (n, height, width)
    frame_numbers : float64 (n,)
        When each would have been taken: frame numbers, with fractions.
    """

    crops: Image
    frame_numbers: NDArray[np.float64]


def interpolate_crops(plan: ClipPlan, aligned: Aligned, recipe: Recipe) -> Interpolated | None:
    """Return the frames from onset to offset as the recipe's number of frames; None of 0."""
    count = recipe.frames.interpolated
    if not count:
        return None
    rows = [aligned.numbers.index(number) for number in plan.interval]
    crops = kernels.interpolate_frames(aligned.crops[rows], count, numbers=plan.interval)
    return Interpolated(crops, interpolated_numbers(plan.interval, count))
