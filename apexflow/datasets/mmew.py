"""MMEW: ``Micro_Expression/{emotion}/S03-01-002/1.jpg``, with one workbook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from apexflow.catalog import Catalog, Clip
from apexflow.datasets.folders import Tree, join, subject_number
from apexflow.datasets.names import alike
from apexflow.datasets.reader import ApexChoice, Reader, clip_of_row, clips_of_rows, finish, place
from apexflow.datasets.rows import Column, Row
from apexflow.datasets.tables import read_rows

if TYPE_CHECKING:
    from apexflow.datasets.corrections import CorrectionSource

_NAMES = ("MMEW_Micro_Exp.xlsx", "MMEW_Micro_Exp_v2.xlsx", "MMEW_Micro_Exp.csv")
_COLUMNS = (
    Column("subject", ("Subject",)),
    Column("clip", ("Filename",)),
    Column("onset", ("OnsetFrame", "Onset")),
    Column("apex", ("ApexFrame", "Apex")),
    Column("offset", ("OffsetFrame", "Offset")),
    Column("action_units", ("AUs", "Action Units", "AU"), required=False),
    Column("emotion", ("Estimated Emotion", "Emotion")),
)
_CLIP = re.compile(r"S([0-9]+)-[0-9]+-[0-9]+", re.IGNORECASE)
_LAYOUT = """\
ROOT/Micro_Expression/happiness/S03-01-002/1.jpg: a folder an emotion, a folder a clip. The
table is MMEW_Micro_Exp.xlsx: Subject, Filename, OnsetFrame, ApexFrame, OffsetFrame, AUs,
Estimated Emotion."""


def read_mmew(
    root: str | Path | None,
    annotations: str | Path | None = None,
    *,
    apex: ApexChoice = "annotated",
    corrections: CorrectionSource = None,
) -> Catalog:
    """Read the micro-expressions of MMEW: 300 clips of 36 subjects as published.

    Parameters
    ----------
    root : path or None
        The folder with ``Micro_Expression``, or that folder; None reads the table alone.
    annotations : path, optional
        ``MMEW_Micro_Exp.xlsx``; found by its usual name in or beside ``root``.
    apex : {"annotated", "middle", "difference", "flow"}
        Where the apex comes from.
    corrections : path, "published" or sequence of Correction, optional
        See `apexflow.datasets.corrections`.

    Returns
    -------
    Catalog
        Subjects as "03", clips as "S03-01-002".

    Raises
    ------
    ApexflowError
        The root or the table cannot be used.
    """
    return finish(mmew_rows(root, annotations), apex, corrections)


def mmew_rows(root: str | Path | None, annotations: str | Path | None = None) -> list[Clip]:
    """Return a clip for every row of the table."""
    where = place(root, annotations, _NAMES, MMEW.title, "Micro_Expression/happiness/S03-01-002")
    sources = _clip_folders(where.tree) if where.tree else {}
    return clips_of_rows(
        read_rows(where.table, _COLUMNS, keep_problems=True),
        lambda row: [_clip(row, where.tree, sources)],
        dataset=MMEW.name,
        title=MMEW.title,
    )


def _clip(row: Row, tree: Tree | None, sources: dict[str, list[str]]) -> Clip:
    number = subject_number(row.identifier("subject"))
    if number is None:
        raise row.error(f"subject must be a number, got {row.text('subject')!r}", "subject")
    name = row.identifier("clip")
    match = _CLIP.fullmatch(name)
    if match is None or int(match[1]) != number:
        raise row.error(f"clip must be named like S{number:02d}-01-002, got {name!r}", "clip")
    emotion = row.identifier("emotion")  # a folder's name, too
    found = sources.get(alike(name), [])
    expected = join("Micro_Expression", emotion, name)
    if tree and len(found) > 1:
        tree.doubt(expected, found)
    return clip_of_row(
        row,
        tree,
        dataset=MMEW.name,
        subject=f"{number:02d}",
        name=name,
        source=found[0] if len(found) == 1 else expected,
    )


def _clip_folders(tree: Tree) -> dict[str, list[str]]:
    """Return the folders of each clip, with or without a level for the subject."""
    found: dict[str, list[str]] = {}
    level = [""]
    for _ in range(4):
        below = [join(f, name) for f in level for name in tree.folders(f)]
        for path in below:
            name = alike(path.rpartition("/")[2])
            if _CLIP.fullmatch(name):
                found.setdefault(name, []).append(path)
        level = [
            path
            for path in below
            if path.casefold() != "macro_expression"
            and not _CLIP.fullmatch(path.rpartition("/")[2])
        ]
    return found


MMEW = Reader(
    name="mmew",
    title="MMEW",
    layout=_LAYOUT,
    annotations=_NAMES,
    published={"mmew": (300, 36)},
    beside=frozenset({"macroexpression"}),
    read=read_mmew,
    rows=mmew_rows,
)
