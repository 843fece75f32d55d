"""The audit of a data set for a recipe: what is wrong with it, and what the recipe cannot use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from apexflow.catalog import Clip
from apexflow.datasets.audit import Report
from apexflow.datasets.audit import audit as audit_data
from apexflow.engine.recipe import Recipe

if TYPE_CHECKING:
    from apexflow.datasets.sources import FrameSource


def audit(
    name: str,
    root: str | Path | None,
    annotations: str | Path | None = None,
    *,
    recipe: str | Path | Recipe | None = None,
    **options: Any,
) -> Report:
    """List what is wrong with a data set.

    Parameters
    ----------
    name, root, annotations, **options
        As `apexflow.datasets.audit.audit` takes them.
    recipe : str, path or Recipe, optional
        Also report clips that this recipe cannot use: too short ones, frames in which its
        detector cannot find a face.

    Returns
    -------
    Report
        Findings with severity, rule, file and row, and a proposal where there is one.

    Raises
    ------
    ApexflowError
        The table, the root or the recipe cannot be read at all.
    """
    if recipe is None:
        return audit_data(name, root, annotations, **options)
    chosen = Recipe.load(recipe)

    def check(clip: Clip) -> None:
        _check_clip(clip, chosen)

    return audit_data(name, root, annotations, check=check, **options)


def _check_clip(clip: Clip, recipe: Recipe) -> None:
    """Raise `ClipError` where the recipe cannot use a clip, as far as its headers tell."""
    from apexflow.engine.clip.faces import refuse_small_frame
    from apexflow.engine.clip.plan import plan_clip

    source, plan = plan_clip(clip, recipe)
    if recipe.face.detector == "mtcnn":
        width, height = _size(source, plan.template)
        refuse_small_frame(width, height, recipe.face.min_face_size, recipe.face.image_side)


def _size(source: FrameSource, number: int) -> tuple[int, int]:
    from apexflow.datasets.images import inspect_image
    from apexflow.datasets.sources import FolderFrames

    if isinstance(source, FolderFrames):
        return inspect_image(source.files[number], deep=False).size
    (frame,) = source.read([number], color=False)
    return frame.shape[1], frame.shape[0]
