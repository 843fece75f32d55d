"""DFME: ``sub0003/sub0003_01/``, with a workbook for training, test A and test B.

DOI 10.1109/TAFFC.2023.3341918.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from apexflow.catalog import Catalog, Clip
from apexflow.datasets.emotions import canonical_emotion
from apexflow.datasets.folders import Tree, join, subject_number
from apexflow.datasets.names import alike
from apexflow.datasets.reader import ApexChoice, Reader, clip_of_row, clips_of_rows, finish, place
from apexflow.datasets.rows import Column, Row, whole_number
from apexflow.datasets.tables import read_rows

if TYPE_CHECKING:
    from apexflow.datasets.corrections import CorrectionSource

_NAMES = (
    "DFME_training_full_with_AU.xlsx",
    *(f"{stem}{suffix}" for stem in ("training", "testA", "testB") for suffix in (".xlsx", ".csv")),
)
_COLUMNS = (
    Column("subject", ("Subject",)),
    Column("clip", ("Filename",)),
    Column("onset", ("OnsetFrame", "Onset")),
    Column("apex", ("ApexFrame", "Apex")),
    Column("offset", ("OffsetFrame", "Offset")),
    Column("emotion", ("Emotion", "Estimated Emotion"), required=False),
    Column("emotion_id", ("EmotionId",), required=False, helper=True),
    Column("action_units", ("AU", "AUs", "Action Units"), required=False),
)
# As the training table numbers them.
_EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")
_LAYOUT = """\
ROOT/sub0003/sub0003_01/: a folder a subject, a folder a clip, frames numbered from 0. The
workbooks training, testA and testB have the columns Subject, Filename, OnsetFrame,
ApexFrame, OffsetFrame, Emotion, EmotionId, Fps, AU; each is read by itself."""


def read_dfme(
    root: str | Path | None,
    annotations: str | Path | None = None,
    *,
    apex: ApexChoice = "annotated",
    corrections: CorrectionSource = None,
) -> Catalog:
    """Read DFME: 7,526 clips of 671 subjects in all of its workbooks.

    Parameters
    ----------
    root : path or None
        The folder with ``sub0003/sub0003_01``; None reads the table alone.
    annotations : path, optional
        One of its workbooks; found by its usual name in or beside ``root``.
    apex : {"annotated", "middle", "difference", "flow"}
        Where the apex comes from.
    corrections : path, "published" or sequence of Correction, optional
        See `apexflow.datasets.corrections`.

    Returns
    -------
    Catalog
        Subjects as "sub0003", clips as "sub0003_01"; the frame rate is the extra "Fps".

    Raises
    ------
    ApexflowError
        The root or the table cannot be used. A clip without frames stays in the catalog.
    """
    return finish(dfme_rows(root, annotations), apex, corrections)


def dfme_rows(root: str | Path | None, annotations: str | Path | None = None) -> list[Clip]:
    """Return a clip for every row of the table."""
    where = place(root, annotations, _NAMES, DFME.title, "sub0003/sub0003_01")
    return clips_of_rows(
        read_rows(where.table, _COLUMNS, keep_problems=True),
        lambda row: [_clip(row, where.tree)],
        dataset=DFME.name,
        title=DFME.title,
    )


def _clip(row: Row, tree: Tree | None) -> Clip:
    text = row.identifier("subject")
    number = subject_number(text)
    if number is None:
        raise row.error(f"subject must be like sub0003, got {text!r}", "subject")
    subject, name = f"sub{number:04d}", row.identifier("clip")
    if subject_number(name.rpartition("_")[0]) != number:
        raise row.error(f"clip {name!r} is not named after subject {subject}", "clip")
    clip = clip_of_row(
        row,
        tree,
        dataset=DFME.name,
        subject=subject,
        name=name,
        source=_source(tree, number, subject, name),
    )
    identity = whole_number(row.known("emotion_id"))
    if clip.emotion or identity is None or identity >= len(_EMOTIONS):
        return clip
    emotion = _EMOTIONS[identity]
    return replace(clip, emotion=canonical_emotion(emotion), emotion_text=emotion)


def _source(tree: Tree | None, number: int, subject: str, name: str) -> str:
    expected = join(subject, name)
    if tree is None:
        return expected
    base = tree.base(_is_subject)
    folder = tree.child(base, lambda n: subject_number(n) == number, subject)
    found = tree.child(folder, lambda n: alike(n) == alike(name), name) if folder else None
    return found or join(base, expected)


def _is_subject(name: str) -> bool:
    return alike(name).startswith("sub") and subject_number(name) is not None


DFME = Reader(
    name="dfme",
    title="DFME",
    layout=_LAYOUT,
    annotations=_NAMES,
    published={},
    read=read_dfme,
    rows=dfme_rows,
)
