"""SAMM: ``006/006_1_2/006_05562.jpg``, with samm.csv or the FACS workbook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from apexflow.catalog import Catalog, Clip
from apexflow.datasets.folders import Tree, join, subject_number
from apexflow.datasets.reader import ApexChoice, Reader, clip_of_row, clips_of_rows, finish, place
from apexflow.datasets.rows import Column, Row
from apexflow.datasets.tables import read_rows

if TYPE_CHECKING:
    from apexflow.datasets.corrections import CorrectionSource

_NAMES = (
    "samm.csv",
    "SAMM_Micro_FACS_Codes_v2.xlsx",
    "SAMM_Micro_FACS_Codes_v2.csv",
    "SAMM_Micro_FACS_Codes.xlsx",
)
_COLUMNS = (
    Column("subject", ("Subject",)),
    Column("clip", ("Filename",)),
    Column("onset", ("Onset Frame", "Onset")),
    Column("apex", ("Apex Frame", "Apex")),
    Column("offset", ("Offset Frame", "Offset")),
    Column("action_units", ("Action Units", "AUs"), required=False),
    Column("emotion", ("Estimated Emotion", "Emotion")),
)
_SUBJECT = re.compile(r"(?:s|sub|subject)?[ _-]?[0-9]{1,3}", re.IGNORECASE)
_CLIP = re.compile(r"([0-9]{1,3})_([0-9]+)_([0-9]+)")
_LAYOUT = """\
ROOT/006/006_1_2/006_05562.jpg: a folder a subject, a folder a clip, numbered frames.
The table is samm.csv (comma or semicolon) or SAMM_Micro_FACS_Codes_v2.xlsx, with the
columns Subject, Filename, Onset Frame, Apex Frame, Offset Frame, Estimated Emotion."""


def read_samm(
    root: str | Path | None,
    annotations: str | Path | None = None,
    *,
    apex: ApexChoice = "annotated",
    corrections: CorrectionSource = None,
) -> Catalog:
    """Read SAMM: 159 clips of 29 subjects in the published table.

    Parameters
    ----------
    root : path or None
        The folder with ``006/006_1_2/006_05562.jpg``; None reads the table alone.
    annotations : path, optional
        ``samm.csv`` or the FACS workbook; found by its usual name in or beside ``root``.
    apex : {"annotated", "middle", "difference", "flow"}
        Where the apex comes from.
    corrections : path, "published" or sequence of Correction, optional
        See `apexflow.datasets.corrections`.

    Returns
    -------
    Catalog
        Subjects as "006", clips as "006_1_2".

    Raises
    ------
    ApexflowError
        The root or the table cannot be used. A clip without frames stays in the catalog.
    """
    return finish(samm_rows(root, annotations), apex, corrections)


def samm_rows(root: str | Path | None, annotations: str | Path | None = None) -> list[Clip]:
    """Return a clip for every row of the table."""
    where = place(root, annotations, _NAMES, SAMM.title, "006/006_1_2/006_05562.jpg")
    return clips_of_rows(
        read_rows(where.table, _COLUMNS, keep_problems=True),
        lambda row: [_clip(row, where.tree)],
        dataset=SAMM.name,
        title=SAMM.title,
    )


def _clip(row: Row, tree: Tree | None) -> Clip:
    subject = _subject(row)
    name = _clip_name(row.identifier("clip"))
    if not name.startswith(f"{subject}_"):
        raise row.error(f"clip {name!r} does not begin with subject {subject!r}", "clip")
    return clip_of_row(
        row,
        tree,
        dataset=SAMM.name,
        subject=subject,
        name=name,
        source=_source(tree, subject, name),
    )


def _subject(row: Row) -> str:
    text = row.identifier("subject")
    number = subject_number(text)
    if number is None:
        raise row.error(f"subject must be a number like 006, got {text!r}", "subject")
    return f"{number:03d}"


def _clip_name(text: str) -> str:
    """Give 6_1_2 (a spreadsheet's doing) its zeros back."""
    match = _CLIP.fullmatch(text)
    return f"{int(match[1]):03d}_{match[2]}_{match[3]}" if match else text


def _source(tree: Tree | None, subject: str, name: str) -> str:
    expected = join(subject, name)
    if tree is None:
        return expected

    def same_clip(folder: str) -> bool:
        return _clip_name(folder.strip()) == name

    number = int(subject)
    base = tree.base(_is_samm_folder)
    folder = tree.child(base, lambda n: subject_number(n) == number, subject)
    found = tree.child(folder, same_clip, name) if folder else None
    return found or tree.child(base, same_clip, name) or join(base, expected)


def _is_samm_folder(name: str) -> bool:
    return _SUBJECT.fullmatch(name) is not None or _CLIP.fullmatch(name) is not None


SAMM = Reader(
    name="samm",
    title="SAMM",
    layout=_LAYOUT,
    annotations=_NAMES,
    published={"samm": (159, 29)},
    read=read_samm,
    rows=samm_rows,
)
