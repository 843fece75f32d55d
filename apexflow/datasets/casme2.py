"""CASME II: raw, cropped and prepared trees, with the coding workbook."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from apexflow.catalog import Catalog, Clip
from apexflow.datasets.folders import Tree, join, subject_number
from apexflow.datasets.frame_names import is_image
from apexflow.datasets.notes import Note, take_note
from apexflow.datasets.reader import (
    ApexChoice,
    Option,
    Reader,
    clip_of_row,
    clips_of_rows,
    finish,
    place,
)
from apexflow.datasets.rows import Column, Row, RowError
from apexflow.datasets.tables import read_rows

if TYPE_CHECKING:
    from apexflow.datasets.corrections import CorrectionSource

_NAMES = (
    "CASME2-coding-20140508.xlsx",
    "CASME2-coding-20190701.xlsx",
    "CASME2-coding-updated.xlsx",
    "CASME2-coding.xlsx",
    "CASME2-coding.csv",
)
_COLUMNS = (
    Column("subject", ("Subject",)),
    Column("clip", ("Filename",)),
    Column("onset", ("OnsetFrame", "Onset")),
    Column("apex", ("ApexFrame", "ApexFrame1", "Apex")),
    Column("offset", ("OffsetFrame", "Offset")),
    Column("action_units", ("Action Units", "AUs"), required=False),
    Column("emotion", ("Estimated Emotion", "Emotion")),
)
_CLASS_COLUMNS = (
    Column("subject", ("Subject",)),
    Column("clip", ("Filename",)),
    Column("objective_class", ("Objective Class", "Objective Classes")),
)
_SUBJECT = re.compile(r"(?:s|sub|subject)[ _-]?[0-9]{1,2}", re.IGNORECASE)
_CLIP = re.compile(r"EP[0-9]", re.IGNORECASE)
_LAYOUT = """\
ROOT/sub01/EP02_01f/img46.jpg (raw) or reg_img46.jpg (cropped), or the prepared layout
ROOT/sub01/ROI_EP02_01f/ with onset_frame.jpg and apex_frame.jpg, or img46.jpg and img59.jpg.
The table is CASME2-coding-20140508.xlsx: Subject, Filename, OnsetFrame, ApexFrame,
OffsetFrame, Action Units, Estimated Emotion."""
_NAMED_FRAMES = {"onset": "onset_frame", "apex": "apex_frame", "offset": "offset_frame"}


def read_casme2(
    root: str | Path | None,
    annotations: str | Path | None = None,
    *,
    apex: ApexChoice = "annotated",
    corrections: CorrectionSource = None,
    objective_classes: str | Path | None = None,
) -> Catalog:
    """Read CASME II: 255 clips of 26 subjects in the published table.

    Parameters
    ----------
    root : path or None
        The folder with ``sub01/EP02_01f``, raw, cropped or prepared; None reads the table
        alone.
    annotations : path, optional
        The coding workbook; found by its usual name in or beside ``root``.
    apex : {"annotated", "middle", "difference", "flow"}
        Where the apex comes from. An apex of "/" is unknown.
    corrections : path, "published" or sequence of Correction, optional
        See `apexflow.datasets.corrections`.
    objective_classes : path, optional
        ``CASME2-ObjectiveClasses.xlsx``; its class becomes the extra "objective class".

    Returns
    -------
    Catalog
        Subjects as "01", clips as "EP02_01f". In the prepared layout with named frames,
        onset, apex and offset are 1, 2 and 3, and the numbers of the table are kept as
        extras.

    Raises
    ------
    ApexflowError
        The root or a table cannot be used. A clip without frames stays in the catalog.
    """
    return finish(
        casme2_rows(root, annotations, objective_classes=objective_classes), apex, corrections
    )


def casme2_rows(
    root: str | Path | None,
    annotations: str | Path | None = None,
    *,
    objective_classes: str | Path | None = None,
) -> list[Clip]:
    """Return a clip for every row of the table."""
    where = place(root, annotations, _NAMES, CASME2.title, "sub01/EP02_01f/img46.jpg")
    clips = clips_of_rows(
        read_rows(where.table, _COLUMNS, keep_problems=True),
        lambda row: [_clip(row, where.tree)],
        dataset=CASME2.name,
        title=CASME2.title,
    )
    if objective_classes is None:
        return clips
    classes = _objective_classes(Path(objective_classes))
    return [
        replace(clip, extra=(*clip.extra, ("objective class", classes[clip.subject, clip.name])))
        if (clip.subject, clip.name) in classes
        else clip
        for clip in clips
    ]


def _clip(row: Row, tree: Tree | None) -> Clip:
    subject = _subject(row)
    name = row.identifier("clip")
    if _CLIP.match(name) is None:
        raise row.error(f"clip must be named like EP02_01f, got {name!r}", "clip")
    clip = clip_of_row(
        row,
        tree,
        dataset=CASME2.name,
        subject=subject,
        name=name,
        source=_source(tree, subject, name),
    )
    return _number_named_frames(clip) if tree else clip


def _subject(row: Row) -> str:
    text = row.identifier("subject")
    number = subject_number(text)
    if number is None:
        raise row.error(f"subject must be a number like 01, got {text!r}", "subject")
    return f"{number:02d}"


def _source(tree: Tree | None, subject: str, name: str) -> str:
    expected = join(f"sub{subject}", name)
    if tree is None:
        return expected
    base = tree.base(lambda folder: _SUBJECT.fullmatch(folder) is not None)
    number = int(subject)
    folder = tree.child(base, lambda n: subject_number(n) == number, f"sub{subject}")
    wanted = {name.casefold(), f"roi_{name}".casefold()}
    found = tree.child(folder, lambda n: n.casefold() in wanted, name) if folder else None
    return found or join(base, expected)


def _number_named_frames(clip: Clip) -> Clip:
    """Give numbers to the frames of the prepared layout, whose names say what they are."""
    assert clip.root is not None
    there = _named_frames(clip.root / clip.source)
    if "onset" not in there:
        return clip
    annotated = tuple(
        (f"annotated {key_frame}", str(getattr(clip, key_frame)))
        for key_frame in _NAMED_FRAMES
        if getattr(clip, key_frame) is not None
    )
    onset, apex, offset = (
        number if key_frame in there else None
        for number, key_frame in enumerate(_NAMED_FRAMES, start=1)
    )
    return replace(clip, onset=onset, apex=apex, offset=offset, extra=(*clip.extra, *annotated))


def _named_frames(folder: Path) -> set[str]:
    """Return the key frames that the prepared layout has in a folder."""
    try:
        with os.scandir(folder) as entries:
            stems = {Path(e.name).stem.casefold() for e in entries if is_image(e.name)}
    except OSError:
        return set()
    return {key_frame for key_frame, stem in _NAMED_FRAMES.items() if stem in stems}


def _objective_classes(path: Path) -> dict[tuple[str, str], str]:
    """Return the classes of (subject, clip); what cannot be read of them costs nothing else."""
    classes: dict[tuple[str, str], str] = {}
    errors = []
    for row in read_rows(path, _CLASS_COLUMNS, keep_problems=True):
        try:
            row.refuse_problems()
            key = _subject(row), row.identifier("clip")
            value = row.text("objective_class")
            if classes.setdefault(key, value) != value:
                classes[key] = ""
                raise row.error(f"{'/'.join(key)} has two objective classes, and so none")
        except RowError as error:
            errors.append(error)
            take_note(Note("warning", "helper-column", row.origin, error.text))
    if errors and not any(classes.values()):
        raise errors[0]
    return {key: value for key, value in classes.items() if value}


CASME2 = Reader(
    name="casme2",
    title="CASME II",
    layout=_LAYOUT,
    annotations=_NAMES,
    published={"casme2": (255, 26)},
    read=read_casme2,
    rows=casme2_rows,
    own_options=(Option("objective_classes", "CASME2-ObjectiveClasses.xlsx, if it is wanted"),),
)
