"""The audit of a data set for a recipe: what is wrong with it, and what the recipe cannot use."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from apexflow.datasets.audit import Report
from apexflow.datasets.audit import audit as audit_data
from apexflow.engine.recipe import Recipe


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
        Also report clips that this recipe cannot use, such as too short ones.

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
    from apexflow.engine.clip.plan import plan_clip

    check = partial(plan_clip, recipe=Recipe.load(recipe))
    return audit_data(name, root, annotations, check=check, **options)
