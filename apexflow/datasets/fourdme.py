"""4DME: folders as its table names them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from apexflow.catalog import Catalog, Clip
from apexflow.datasets.folders import Tree, join, subject_number
from apexflow.datasets.reader import ApexChoice, Reader, clip_of_row, clips_of_rows, finish, place
from apexflow.datasets.rows import Column, Row
from apexflow.datasets.tables import read_rows

if TYPE_CHECKING:
    from apexflow.datasets.corrections import CorrectionSource

_NAMES = ("4DME_Labelling_Micro_release v1.xlsx", "4DME_Labelling_Micro_release.xlsx")
_COLUMNS = (
    Column("subject", ("sub_ID", "Subject")),
    Column("clip", ("fold_name", "Filename")),
    Column("onset", ("Onset",)),
    Column("apex", ("Apex",)),
    Column("offset", ("Offset",)),
    Column("action_units", ("AUs", "AU"), required=False),
    Column("emotion", ("Emotion",)),
)
_LAYOUT = """\
ROOT/SUBJECT/FOLDER/1.jpg or ROOT/FOLDER/1.jpg, as the table's sub_ID and fold_name say. The
table is "4DME_Labelling_Micro_release v1.xlsx": sub_ID, fold_name, Onset, Apex, Offset, AUs,
Emotion. Several emotions of one clip are joined by "&"."""


def read_4dme(
    root: str | Path | None,
    annotations: str | Path | None = None,
    *,
    apex: ApexChoice = "annotated",
    corrections: CorrectionSource = None,
) -> Catalog:
    """Read the micro-expressions of 4DME.

    Parameters
    ----------
    root : path or None
        The folder with the table's folders; None reads the table alone.
    annotations : path, optional
        ``4DME_Labelling_Micro_release v1.xlsx``; found by its usual name in or beside
        ``root``.
    apex : {"annotated", "middle", "difference", "flow"}
        Where the apex comes from.
    corrections : path, "published" or sequence of Correction, optional
        See `apexflow.datasets.corrections`.

    Returns
    -------
    Catalog
        Subjects as "01" where the table has numbers, else as they stand; clips as the
        table's fold_name; emotions joined by "&".

    Raises
    ------
    ApexflowError
        The root or the table cannot be used.
    """
    return finish(fourdme_rows(root, annotations), apex, corrections)


def fourdme_rows(root: str | Path | None, annotations: str | Path | None = None) -> list[Clip]:
    """Return a clip for every row of the table."""
    where = place(root, annotations, _NAMES, FOURDME.title, "the folders that fold_name names")
    return clips_of_rows(
        read_rows(where.table, _COLUMNS, keep_problems=True),
        lambda row: [_clip(row, where.tree)],
        dataset=FOURDME.name,
        title=FOURDME.title,
    )


def _clip(row: Row, tree: Tree | None) -> Clip:
    text = row.identifier("subject")
    number = subject_number(text)
    subject = text if number is None else f"{number:02d}"
    name = row.identifier("clip")
    return clip_of_row(
        row,
        tree,
        dataset=FOURDME.name,
        subject=subject,
        name=name,
        source=_source(tree, text, name),
    )


def _source(tree: Tree | None, subject: str, name: str) -> str:
    if tree is None:
        return join(subject, name)

    def same(folder: str) -> bool:
        return folder.casefold() == name.casefold()

    number = subject_number(subject)
    folder = tree.child("", lambda n: number is not None and subject_number(n) == number, subject)
    found = tree.child(folder, same, name) if folder else None
    return found or tree.child("", same, name) or join(subject, name)


FOURDME = Reader(
    name="4dme",
    title="4DME",
    layout=_LAYOUT,
    annotations=_NAMES,
    read=read_4dme,
    rows=fourdme_rows,
)
