"""CAS(ME)³: part A (elicited by videos) and part C (mock crime)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from apexflow.catalog import Catalog, Clip, person_of
from apexflow.datasets.folders import Tree, join, subject_number
from apexflow.datasets.reader import (
    ApexChoice,
    Option,
    Reader,
    clip_of_row,
    clips_of_rows,
    finish,
    place,
)
from apexflow.datasets.rows import Column, Row
from apexflow.datasets.tables import read_rows
from apexflow.errors import ApexflowError

if TYPE_CHECKING:
    from apexflow.datasets.corrections import CorrectionSource

Part = Literal["A", "C"]

_SUBJECT = re.compile(r"sp(?:NO\.)?[0-9]+", re.IGNORECASE)
_NAMES = {
    "A": (
        "cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx",
        "cas(me)3_part_A_ME_label_JpgIndex.xlsx",
    ),
    "C": ("CAS(ME)3_part_C_ME.xlsx", "CAS(ME)3_part_C_ME.csv"),
}
_COLUMNS = {
    "A": (
        Column("subject", ("Subject",)),
        Column("clip", ("Filename",)),
        Column("onset", ("Onset",)),
        Column("apex", ("Apex",)),
        Column("offset", ("Offset",)),
        Column("action_units", ("AU", "AUs"), required=False),
        Column("emotion", ("emotion",)),
    ),
    "C": (
        Column("subject", ("sub", "Subject")),
        Column("clip", ("count", "Filename"), required=False),
        Column("onset", ("onset",)),
        Column("apex", ("apex",), required=False),
        Column("offset", ("offset",)),
        Column("action_units", ("au", "AUs"), required=False),
        Column("emotion", ("emotion",), required=False),
    ),
}
_PART_C = "casme3c"
_LAYOUT = """\
Part A: ROOT/spNO.1/b/color/175.jpg, with cas(me)3_part_A_ME_label_JpgIndex_v2.xlsx:
Subject, Filename, Onset, Apex, Offset, AU, Objective class, emotion.
Part C: ROOT/01/a/color/175.jpg, with CAS(ME)3_part_C_ME.xlsx: sub, count, onset, offset, au.
A video holds several expressions, so the onset is part of a clip's name."""


def read_casme3(
    root: str | Path | None,
    annotations: str | Path | None = None,
    *,
    apex: ApexChoice = "annotated",
    corrections: CorrectionSource = None,
    part: Part = "A",
) -> Catalog:
    """Read CAS(ME)³: 860 clips of 94 subjects in the table of part A.

    Parameters
    ----------
    root : path or None
        The folder with ``spNO.1/b/color`` (part A) or ``01/a/color`` (part C); None reads
        the table alone.
    annotations : path, optional
        The part's workbook; found by its usual name in or beside ``root``.
    apex : {"annotated", "middle", "difference", "flow"}
        Where the apex comes from.
    corrections : path, "published" or sequence of Correction, optional
        See `apexflow.datasets.corrections`.
    part : {"A", "C"}
        Part B has no annotation.

    Returns
    -------
    Catalog
        Part A, data set "casme3": subjects as "spNO.1", clips as "b_166" (video, onset).
        Part C, data set "casme3c": subjects as "01", clips as "1_166" (count, onset). A
        subject is taken for the person who has its number in part A.

    Raises
    ------
    ApexflowError
        The root or the table cannot be used.
    """
    return finish(casme3_rows(root, annotations, part=part), apex, corrections)


def casme3_rows(
    root: str | Path | None, annotations: str | Path | None = None, *, part: str = "A"
) -> list[Clip]:
    """Return a clip for every row of the table."""
    if part not in _NAMES:
        raise ApexflowError(f"part must be 'A' or 'C'. Got {part!r}.")
    expected = "spNO.1/b/color/175.jpg" if part == "A" else "01/a/color/175.jpg"
    where = place(root, annotations, _NAMES[part], f"{CASME3.title} part {part}", expected)
    clip_of = _clip_a if part == "A" else _clip_c
    return clips_of_rows(
        read_rows(where.table, _COLUMNS[part], keep_problems=True),
        lambda row: [clip_of(row, where.tree)],
        dataset=CASME3.name if part == "A" else _PART_C,
        title=f"{CASME3.title} part {part}",
    )


def _clip_a(row: Row, tree: Tree | None) -> Clip:
    number = _number(row)
    video = row.identifier("clip").casefold()
    subject = f"spNO.{number}"
    source = join(subject, video, "color")
    if tree:
        base = tree.base(lambda name: _SUBJECT.fullmatch(name) is not None)
        folder = tree.child(base, lambda n: subject_number(n) == number, subject)
        found = tree.child(folder, lambda n: n.casefold() == video, video) if folder else None
        source = _color(tree, found) if found else join(base, source)
    return _clip(row, tree, CASME3.name, subject, video, source)


def _clip_c(row: Row, tree: Tree | None) -> Clip:
    number = _number(row)
    subject = f"{number:02d}"
    source = join(subject, "a", "color")
    if tree:
        base = tree.base(str.isdecimal)
        folder = tree.child(base, lambda n: subject_number(n) == number, subject)
        # One video a subject; whatever its folder is called, it is the only one.
        found = tree.child(folder, lambda _: True, "a") if folder else None
        source = _color(tree, found) if found else join(base, source)
    count = row.identifier("clip") if row.text("clip") else "a"
    clip = _clip(row, tree, _PART_C, subject, count, source)
    # Whether a number is one person in both parts, nothing published says. Taken for one, nobody
    # is on both sides of a fold.
    return replace(clip, person=str(person_of(CASME3.name, f"spNO.{number}")))


def _clip(row: Row, tree: Tree | None, dataset: str, subject: str, video: str, source: str) -> Clip:
    onset = row.frame("onset")
    return clip_of_row(
        row,
        tree,
        dataset=dataset,
        subject=subject,
        name=f"{video}_{onset}",
        source=source,
        offset_known=False,
    )


def _number(row: Row) -> int:
    text = row.identifier("subject")
    number = subject_number(text)
    if number is None:
        raise row.error(f"subject must be like spNO.1 or 01, got {text!r}", "subject")
    return number


def _color(tree: Tree, folder: str) -> str:
    """Return the folder of the colour frames, which lie beside the depth maps."""
    return tree.child(folder, lambda name: name.casefold() == "color", "color") or folder


CASME3 = Reader(
    name="casme3",
    title="CAS(ME)³",
    layout=_LAYOUT,
    annotations=(*_NAMES["A"], *_NAMES["C"]),
    published={"casme3": (860, 94)},
    read=read_casme3,
    rows=casme3_rows,
    beside=frozenset({"depth"}),
    partly_annotated=True,
    own_options=(Option("part", "part of the data set", ("A", "C"), "A"),),
)
