"""The audit of one data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from apexflow.catalog import Clip
from apexflow.datasets import AUDITED, Reader
from apexflow.datasets.audit.annotations import check_annotations
from apexflow.datasets.audit.disk import DiskCheck
from apexflow.datasets.audit.findings import Finding, Report, worst_first
from apexflow.datasets.corrections import CorrectionSource, apply_corrections
from apexflow.datasets.notes import collect_notes
from apexflow.datasets.reader import choose_apex, settled
from apexflow.errors import ApexflowError, ClipError


def audit(
    name: str,
    root: str | Path | None,
    annotations: str | Path | None = None,
    *,
    deep: bool = False,
    check: Callable[[Clip], object] | None = None,
    apex: str = "annotated",
    corrections: CorrectionSource = None,
    workers: int | None = None,
    **options: Any,
) -> Report:
    """List what is wrong with a data set.

    Parameters
    ----------
    name : str
        A data set of `apexflow.datasets.AUDITED`.
    root : path or None
        The data set's folder; None looks at the annotations alone.
    annotations : path, optional
        The table; found by its usual name in or beside ``root``.
    deep : bool
        Decode every frame, instead of reading headers. What has 64 MiB at most is decoded in
        any case.
    check : callable, optional
        Raises `ClipError` for a clip that cannot be used further on, which is reported.
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
    if name not in AUDITED:
        raise ApexflowError(f"data set must be one of {', '.join(AUDITED)}. Got {name!r}.")
    reader = AUDITED[name]
    with collect_notes() as notes:
        rows = settled(reader.rows(root, annotations, **options))
    clips = [choose_apex(clip, apex) for clip in apply_corrections(rows, corrections)]
    findings = [*map(Finding.from_note, notes), *check_annotations(reader, clips)]
    frames = 0
    decoded = deep
    if root is not None:
        disk = DiskCheck(Path(root), reader, deep, workers)
        findings += disk.findings(clips)
        missing = sum(finding.rule == "clip-missing" for finding in findings)
        if missing and missing == sum(not clip.problems for clip in clips):
            findings.insert(0, _wrong_root(root, reader, missing))
        frames, decoded = disk.frames, disk.decoded
        if check is not None:
            reported = {finding.clip for finding in findings if finding.severity == "error"}
            findings += _unusable([c for c in clips if str(c) not in reported], check)
    return Report(reader.title, len(clips), frames, worst_first(findings), decoded)


def _wrong_root(root: str | Path, reader: Reader, missing: int) -> Finding:
    return Finding(
        severity="error",
        rule="layout",
        clip="",
        where=str(root),
        message=f"none of {missing} clips is in it; is it the right folder?",
        proposal=reader.layout.replace("\n", " "),
    )


def _unusable(clips: Sequence[Clip], check: Callable[[Clip], object]) -> Iterator[Finding]:
    for clip in clips:
        try:
            check(clip)
        except ClipError as error:
            yield Finding.of("error", "recipe", clip, str(error))
