"""Any data set: one table that names a folder of frames, or a video, for each clip."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Literal

from apexflow.catalog import Catalog, Clip
from apexflow.datasets.emotions import canonical_emotion
from apexflow.datasets.reader import (
    ApexChoice,
    Option,
    Reader,
    clips_of_rows,
    finish,
    key_frames,
    place,
)
from apexflow.datasets.rows import Column, Row, attempt, whole_number
from apexflow.datasets.subjects import one_spelling
from apexflow.datasets.tables import read_rows
from apexflow.errors import ApexflowError

if TYPE_CHECKING:
    from apexflow.datasets.corrections import CorrectionSource

_NAMES = ("annotations.csv", "clips.csv", "labels.csv", "annotations.xlsx")
_COLUMNS = (
    Column("subject", ("subject",)),
    Column("clip", ("clip", "name")),
    Column("path", ("path",)),
    Column("onset", ("onset", "onset frame")),
    Column("apex", ("apex", "apex frame"), required=False),
    Column("offset", ("offset", "offset frame")),
    Column("label", ("label",), required=False),
    Column("emotion", ("emotion",), required=False),
    Column("action_units", ("action units", "aus", "au"), required=False),
    Column("dataset", ("dataset", "data set"), required=False),
    Column("person", ("person",), required=False),
)
_NAME = re.compile(r"(?![0-9.,+-]+e[0-9+-]+$).*[^\W\d_]", re.IGNORECASE)  # a letter, but no 1e3
_LAYOUT = """\
One table with the columns subject, clip, path, onset, apex, offset, label. `path` is
relative to ROOT: a folder of numbered images, or a video (mp4, avi, mov, mkv, …). Frame
numbers are the numbers in the images' names, or positions in the video from 0; empty
cells, "/" and "nan" are unknown. `label` is a class number, or the name of an emotion.
Optional columns: emotion, action units, dataset, and person (who it is, where subjects of
several data sets, or several spellings, are one)."""


def read_table(
    root: str | Path | None,
    annotations: str | Path | None = None,
    *,
    apex: ApexChoice = "annotated",
    corrections: CorrectionSource = None,
    dataset: str = "table",
) -> Catalog:
    """Read any data set from one table: subject, clip, path, onset, apex, offset, label.

    Parameters
    ----------
    root : path or None
        The folder that ``path`` is relative to; None reads the table alone.
    annotations : path, optional
        The table; by default ``annotations.csv`` (or clips.csv, labels.csv) in or beside
        ``root``.
    apex : {"annotated", "middle", "difference", "flow"}
        Where the apex comes from.
    corrections : path, "published" or sequence of Correction, optional
        See `apexflow.datasets.corrections`.
    dataset : str
        `Clip.dataset` of the rows, unless the table has a column of that name.

    Returns
    -------
    Catalog
        A label that is a number becomes `Clip.label`, any other text `Clip.emotion`.

    Raises
    ------
    ApexflowError
        The root or the table cannot be used. A row that cannot be read is a clip with
        ``problems``.
    """
    return finish(table_rows(root, annotations, dataset=dataset), apex, corrections)


def table_rows(
    root: str | Path | None, annotations: str | Path | None = None, *, dataset: str = "table"
) -> list[Clip]:
    """Return a clip for every row of the table."""
    where = place(root, annotations, _NAMES, TABLE.title, "the folders that the table names")
    rows = read_rows(where.table, _COLUMNS, keep_problems=True)
    kind = _kind_of_labels(rows)
    clips = clips_of_rows(
        rows,
        lambda row: [_clip(row, where.root, dataset, kind)],
        dataset=dataset,
        title="this data set",
    )
    return _with_one_spelling(clips, where.table.name)


def map_rows(table: str | Path, *, dataset: str = "table") -> list[Clip]:
    """Return a clip for every row of a table of maps: as `table_rows`, path and frames optional.

    Spellings are left as they are: in a composite under one name, 006, s06 and sub06 are three
    people. Raises `ApexflowError` when the table cannot be read.
    """
    optional = ("path", "onset", "offset")
    columns = [replace(one, required=one.required and one.name not in optional) for one in _COLUMNS]
    rows = read_rows(table, columns)
    kind = _kind_of_labels(rows)
    clips = [_clip(row, None, dataset, kind, need_path=False) for row in rows]
    for clip in clips:
        if clip.problems:
            raise ApexflowError(clip.problem)
    return clips


def _with_one_spelling(clips: list[Clip], table: str) -> list[Clip]:
    """Give each person one subject; in two folds, their clips would train and test."""
    names = {
        clip.dataset: [c.subject for c in clips if c.dataset == clip.dataset] for clip in clips
    }
    chosen = {name: one_spelling(name, subjects, table) for name, subjects in names.items()}
    return [_respelled(clip, chosen[clip.dataset][clip.subject]) for clip in clips]


def _respelled(clip: Clip, subject: str) -> Clip:
    if subject == clip.subject:
        return clip
    written = ("subject as written", clip.subject)
    return replace(clip, subject=subject, extra=(*clip.extra, written))


def _kind_of_labels(rows: Sequence[Row]) -> Literal["numbers", "names"]:
    """Tell whether classes are numbers or names: mixed, they leave some clips without a class.

    Raises `ApexflowError` where there are as many of both.
    """
    named: list[Row] = []
    numbers: list[Row] = []
    for row in rows:
        if label := row.known("label"):
            (named if _NAME.match(label) else numbers).append(row)
    if numbers and len(named) == len(numbers):
        first, other = sorted((named[0], numbers[0]), key=lambda row: row.number)
        raise other.error(
            f"label {other.text('label')!r}, but {first.text('label')!r} in row "
            f"{first.number}; labels must be all numbers or all names",
            "label",
        )
    return "names" if len(named) > len(numbers) else "numbers"


def _label(row: Row, kind: str) -> tuple[int | None, str]:
    """Return the number of a class, or its name.

    Raises `RowError` for what is neither, or not what the other rows have.
    """
    label = row.known("label")
    if not label:
        return None, ""
    if _NAME.match(label):
        if kind == "numbers":
            raise row.error(f"label {label!r} is a name, those of other rows are numbers", "label")
        return None, label
    number = whole_number(label, most_digits=9)
    if number is None:
        raise row.error(f"label must be a class number from 0, or a name, got {label!r}", "label")
    if kind == "names":
        raise row.error(f"label {label!r} is a number, those of other rows are names", "label")
    return number, ""


def _clip(row: Row, root: Path | None, dataset: str, kind: str, *, need_path: bool = True) -> Clip:
    frames = key_frames(row, onset_known=False, offset_known=False)
    problems = dict(frames.pop("problems"))
    number, named = attempt(problems, _label, row, kind) or (None, "")
    needed = need_path or row.known("path")
    source = (attempt(problems, _source, row, root) or "") if needed else ""
    emotion = row.known("emotion") or named
    # A named class that is not the emotion is kept as well.
    extra = (("label", named),) if named and named != emotion else ()
    return Clip(
        dataset=row.identifier("dataset") if row.known("dataset") else dataset,
        subject=row.identifier("subject"),
        name=row.identifier("clip"),
        root=root,
        source=source,
        **frames,
        emotion=canonical_emotion(emotion),
        emotion_text=row.text("emotion") or named,
        label=number,
        action_units=row.text("action_units"),
        person=row.text("person"),
        origin=row.origin,
        extra=(*row.extra, *extra),
        problems=tuple(problems.items()),
    )


def _source(row: Row, root: Path | None) -> str:
    text = row.known("path")
    if not text:
        raise row.error("no path; name the clip's folder or video, relative to the root", "path")
    windows = PureWindowsPath(text)
    if ".." in windows.parts:
        raise row.error(f"path {text!r} must not contain '..'; it is relative to the root", "path")
    if windows.drive or windows.root:
        return _below(row, text, root)
    return PurePosixPath(*windows.parts).as_posix()


def _below(row: Row, text: str, root: Path | None) -> str:
    """Make an absolute path relative, if it lies in the root."""
    path = Path(text)
    if root is not None and path.is_absolute() and path.is_relative_to(root.absolute()):
        return path.relative_to(root.absolute()).as_posix()
    raise row.error(f"path {text!r} must be relative to the root", "path")


TABLE = Reader(
    name="table",
    title="any data set, from one table",
    layout=_LAYOUT,
    annotations=_NAMES,
    read=read_table,
    rows=table_rows,
    own_options=(Option("dataset", "name of the data set, where the table has no such column"),),
)
