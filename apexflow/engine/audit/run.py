"""The audit of one data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from apexflow.catalog import Clip
from apexflow.engine.audit.annotations import check_annotations
from apexflow.engine.audit.disk import DiskCheck
from apexflow.engine.audit.findings import Finding, Report, worst_first
from apexflow.engine.corrections import CorrectionSource, apply_corrections
from apexflow.engine.process import plan_clip
from apexflow.engine.readers import READERS, Reader
from apexflow.engine.readers.reader import choose_apex
from apexflow.engine.recipe import Recipe
from apexflow.errors import ApexflowError, ClipError


def audit(
    name: str,
    root: str | Path | None,
    annotations: str | Path | None = None,
    *,
    deep: bool = False,
    recipe: str | Path | Recipe | None = None,
    apex: str = "annotated",
    corrections: CorrectionSource = None,
    workers: int | None = None,
    **options: Any,
) -> Report:
    """List what is wrong with a data set.

    Parameters
    ----------
    name : str
        A data set of `apexflow.engine.readers.READERS`.
    root : path or None
        The data set's folder; None looks at the annotations alone.
    annotations : path, optional
        The table; found by its usual name in or beside ``root``.
    deep : bool
        Decode every frame, instead of reading headers.
    recipe : str, path or Recipe, optional
        Also report clips that this recipe cannot use, such as too short ones.
    apex, corrections
        As for the readers: what is left after them is reported.
    workers : int, optional
        Files at a time.
    **options
        The data set's own options, such as ``subset="HS-E"``.

    Returns
    -------
    Report
        Findings with severity, rule, file and row, and a proposal where there is one.

    Raises
    ------
    ApexflowError
        The table or the root cannot be read at all.
    """
    if name not in READERS:
        raise ApexflowError(f"data set must be one of {', '.join(READERS)}. Got {name!r}.")
    reader = READERS[name]
    chosen = None if recipe is None else Recipe.load(recipe)
    rows = reader.rows(root, annotations, **options)
    clips = [choose_apex(clip, apex) for clip in apply_corrections(rows, corrections)]
    findings = list(check_annotations(reader, clips))
    frames = 0
    if root is not None:
        disk = DiskCheck(Path(root), reader, deep, workers)
        findings += disk.findings(clips)
        missing = sum(finding.rule == "clip-missing" for finding in findings)
        if clips and missing == len(clips):
            findings.insert(0, _wrong_root(root, reader, missing))
        frames = disk.frames
        if chosen is not None:
            reported = {finding.clip for finding in findings if finding.severity == "error"}
            findings += _unusable([c for c in clips if str(c) not in reported], chosen)
    return Report(reader.title, len(clips), frames, worst_first(findings))


def _wrong_root(root: str | Path, reader: Reader, missing: int) -> Finding:
    return Finding(
        severity="error",
        rule="layout",
        clip="",
        where=str(root),
        message=f"none of {missing} clips is in it; is it the right folder?",
        proposal=reader.layout.replace("\n", " "),
    )


def _unusable(clips: Sequence[Clip], recipe: Recipe) -> Iterator[Finding]:
    for clip in clips:
        try:
            plan_clip(clip, recipe)
        except ClipError as error:
            yield Finding.of("error", "recipe", clip, str(error))
