"""CASME: ``sub01/EP01_12``, sections A and B, with two apex columns.

DOI 10.1109/FG.2013.6553799. Written after the published description and CASME II's reader; it was
not tried on the real table, which nobody here had.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from apexflow.catalog import Catalog, Clip
from apexflow.datasets.folders import Tree, join, subject_number
from apexflow.datasets.names import alike
from apexflow.datasets.notes import Note, take_note
from apexflow.datasets.reader import ApexChoice, Reader, clip_of_row, clips_of_rows, finish, place
from apexflow.datasets.rows import Column, Row
from apexflow.datasets.tables import read_rows

if TYPE_CHECKING:
    from apexflow.datasets.corrections import CorrectionSource

_NAMES = ("CASME-coding.xlsx", "CASME_coding.xlsx", "CASME.xlsx", "CASME-coding.csv", "CASME.csv")
_COLUMNS = (
    Column("subject", ("Subject",)),
    Column("clip", ("Filename",)),
    Column("onset", ("OnsetF", "OnsetFrame", "Onset")),
    Column("apex", ("ApexF1", "ApexF", "ApexFrame", "Apex")),
    Column("apex2", ("ApexF2", "ApexFrame2"), required=False, helper=True),
    Column("offset", ("OffsetF", "OffsetFrame", "Offset")),
    Column("action_units", ("AUs", "Action Units", "AU"), required=False),
    Column("emotion", ("Emotion", "Estimated Emotion")),
)
_CLIP = re.compile(r"EP[0-9]", re.IGNORECASE)
_DEEPEST = 4
_LAYOUT = """\
ROOT/sub01/EP01_12/, or ROOT/Section A/sub01/EP01_12/: a folder a subject, a folder a clip,
numbered frames; sections A and B side by side. The table has the columns Subject, Filename,
OnsetF, ApexF1, ApexF2, OffsetF, AUs, Emotion; an apex of 0 is unknown."""


def read_casme(
    root: str | Path | None,
    annotations: str | Path | None = None,
    *,
    apex: ApexChoice = "annotated",
    corrections: CorrectionSource = None,
) -> Catalog:
    """Read CASME: 195 clips of 19 subjects as published.

    Parameters
    ----------
    root : path or None
        The folder with ``sub01/EP01_12``, or with its sections; None reads the table alone.
    annotations : path, optional
        The coding table; found by its usual name in or beside ``root``.
    apex : {"annotated", "middle", "difference", "flow"}
        Where the apex comes from. Of two annotated ones the first; the second is the extra
        "second apex".
    corrections : path, "published" or sequence of Correction, optional
        See `apexflow.datasets.corrections`.

    Returns
    -------
    Catalog
        Subjects as "01", clips as "EP01_12".

    Raises
    ------
    ApexflowError
        The root or the table cannot be used. A clip without frames stays in the catalog.
    """
    return finish(casme_rows(root, annotations), apex, corrections)


def casme_rows(root: str | Path | None, annotations: str | Path | None = None) -> list[Clip]:
    """Return a clip for every row of the table."""
    where = place(root, annotations, _NAMES, CASME.title, "sub01/EP01_12")
    folders = _clip_folders(where.tree) if where.tree else {}
    return clips_of_rows(
        read_rows(where.table, _COLUMNS, keep_problems=True),
        lambda row: [_clip(row, where.tree, folders)],
        dataset=CASME.name,
        title=CASME.title,
    )


def _clip(row: Row, tree: Tree | None, folders: dict[tuple[int, str], list[str]]) -> Clip:
    text = row.identifier("subject")
    number = subject_number(text)
    if number is None:
        raise row.error(f"subject must be a number like 01, got {text!r}", "subject")
    name = row.identifier("clip")
    if _CLIP.match(name) is None:
        raise row.error(f"clip must be named like EP01_12, got {name!r}", "clip")
    found = folders.get((number, alike(name)), [])
    expected = join(f"sub{number:02d}", name)
    if tree and len(found) > 1:
        tree.doubt(expected, found)
    clip = clip_of_row(
        row,
        tree,
        dataset=CASME.name,
        subject=f"{number:02d}",
        name=name,
        source=found[0] if len(found) == 1 else expected,
    )
    return _with_one_apex(clip, row)


def _with_one_apex(clip: Clip, row: Row) -> Clip:
    """Take the first apex that is not 0, and keep the second."""
    first, second = clip.apex or None, row.helper("apex2") or None
    if first is None or second is None:
        return replace(clip, apex=first or second)
    take_note(
        Note("note", "two-apexes", row.origin, f"apexes {first} and {second}; the first is read")
    )
    return replace(clip, apex=first, extra=(*clip.extra, ("second apex", str(second))))


def _clip_folders(tree: Tree) -> dict[tuple[int, str], list[str]]:
    """Return the folders of each (subject, clip), whatever section they lie in."""
    found: dict[tuple[int, str], list[str]] = {}
    level = [""]
    for _ in range(_DEEPEST):
        below = [join(f, name) for f in level for name in tree.folders(f)]
        for path in below:
            parent, _, name = path.rpartition("/")
            number = subject_number(parent.rpartition("/")[2])
            if _CLIP.match(name) and number is not None:
                found.setdefault((number, alike(name)), []).append(path)
        level = [path for path in below if not _CLIP.match(path.rpartition("/")[2])]
    return found


CASME = Reader(
    name="casme",
    title="CASME",
    layout=_LAYOUT,
    annotations=_NAMES,
    published={"casme": (195, 19)},
    read=read_casme,
    rows=casme_rows,
)
