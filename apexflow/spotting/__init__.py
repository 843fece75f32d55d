"""Spotting: the intervals of long videos in which somebody's face shows an expression.

`intervals` reads tables, `scoring` scores them. The way of a video: `measure` goes through its
frames in bounded memory (`follow` finds the face in each, `motion` measures how it has moved),
`curves` makes curves and intervals of that, by brows and mouth or by `mdmd`; `recipe` holds
every parameter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apexflow.spotting.intervals import Intervals, Span, read_intervals
from apexflow.spotting.scoring import Score, score, strs

if TYPE_CHECKING:
    from apexflow.spotting.curves import Curve, MotionCurves, Spot, curves_of, motion_curves
    from apexflow.spotting.measure import FaceBox, measure_video
    from apexflow.spotting.recipe import SpotRecipe, spot_recipe_names

__all__ = [
    "Curve",
    "FaceBox",
    "Intervals",
    "MotionCurves",
    "Score",
    "Span",
    "Spot",
    "SpotRecipe",
    "curves_of",
    "measure_video",
    "motion_curves",
    "read_intervals",
    "score",
    "spot_recipe_names",
    "strs",
]

# What loads kernels loads on first use: a score needs none.
_LATER = {
    **dict.fromkeys(("Curve", "MotionCurves", "Spot", "curves_of", "motion_curves"), "curves"),
    **dict.fromkeys(("FaceBox", "measure_video"), "measure"),
    **dict.fromkeys(("SpotRecipe", "spot_recipe_names"), "recipe"),
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        import importlib

        return getattr(importlib.import_module(f"apexflow.spotting.{_LATER[name]}"), name)
    raise AttributeError(f"module 'apexflow.spotting' has no attribute {name!r}")
