"""Enlarging the motion of the aligned crops, for all steps after this one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from apexflow import kernels
from apexflow.engine.clip.plan import ClipPlan
from apexflow.engine.clip.result import Aligned
from apexflow.errors import ClipError
from apexflow.quality import Flag

if TYPE_CHECKING:
    from apexflow.datasets.sources import Image
    from apexflow.engine.recipe import Magnification, Recipe
    from apexflow.kernels import EulerianMagnified, FlowMagnified

NO_RATE = (
    "its frame rate is not known, and a band in Hz needs it: give the annotation table a column "
    "fps, or take magnification.method 'flow', which does without"
)
_FOLDED = 1e-3  # part of a frame: in less nothing can be seen


@dataclass(frozen=True, slots=True)
class Magnified:
    """The crops of a clip with their motion enlarged, or as they were.

    Attributes
    ----------
    aligned : Aligned
    times : float
        How many times as large motion has become, of levels with different alphas in the mean;
        1 where nothing was asked for.
    found : dict
        What a record keeps of it: ``motion``, with ``levels`` (wavelength and alpha of each) or
        ``folded``, as the kernels' results have them.
    flags : tuple of Flag
    """

    aligned: Aligned
    times: float = 1.0
    found: dict[str, Any] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()


def magnify_crops(plan: ClipPlan, aligned: Aligned, recipe: Recipe) -> Magnified:
    """Return the crops with their motion against the onset enlarged as the recipe says.

    Raises `ClipError` where a frame rate is needed and not known, or the clip is too short for
    the band.
    """
    wanted = recipe.magnification
    if wanted.method == "none":
        return Magnified(aligned)
    result = magnify_frames(
        aligned.crops, aligned.numbers, wanted, onset=plan.interval[0], rate=plan.rate
    )
    alphas = [level.alpha for level in getattr(result, "levels", ())] or [result.alpha]
    return Magnified(
        replace(aligned, crops=result.frames),
        1 + sum(alphas) / len(alphas),
        said(result),
        flags_of(result),
    )


def magnify_frames(
    crops: Image,
    numbers: tuple[int, ...],
    wanted: Magnification,
    *,
    onset: int,
    rate: float | None,
) -> EulerianMagnified | FlowMagnified:
    """Return numbered crops magnified against the frame nearest to the onset.

    Raises `ClipError` as `magnify_crops` does.
    """
    nearest = min(range(len(numbers)), key=lambda row: abs(numbers[row] - onset))
    options: dict[str, Any] = {
        "low": wanted.low,
        "high": wanted.high,
        "numbers": numbers,
        "reference": nearest,
    }
    if wanted.method == "eulerian" and rate is None:
        raise ClipError(NO_RATE)
    span = numbers[-1] - numbers[0] + 1
    if rate is not None and span > 2 * len(numbers):
        raise ClipError(
            f"{span - len(numbers)} of {span} frames are not on disk, and a band needs half of "
            f"them at least: copy them again, or leave magnification out"
        )
    try:
        if wanted.method == "eulerian":
            return kernels.magnify_eulerian(crops, wanted.alpha, rate=rate or 0.0, **options)
        return kernels.magnify_flow(crops, wanted.alpha, rate=rate, **options)
    except ValueError as error:
        raise ClipError(
            f"magnification: {error} Take a wider band: a lower low or a higher high"
        ) from None


def said(result: EulerianMagnified | FlowMagnified) -> dict[str, Any]:
    """Return what a record keeps of a result, as plain JSON values."""
    if isinstance(result, kernels.EulerianMagnified):
        levels = [[_short(level.wavelength), _short(level.alpha)] for level in result.levels]
        return {"motion": _short(result.motion), "levels": levels}
    return {"motion": _short(result.motion), "folded": _short(result.folded)}


def flags_of(result: EulerianMagnified | FlowMagnified) -> tuple[Flag, ...]:
    """Return what is doubtful about a magnified clip."""
    if isinstance(result, kernels.EulerianMagnified):
        return (Flag("beyond-bound", result.motion),) if result.beyond_bound else ()
    return (Flag("folded", result.folded),) if result.folded > _FOLDED else ()


def _short(value: float) -> float:
    return float(f"{value:.4g}")
