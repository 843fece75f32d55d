"""CAS(ME)²: macro- and micro-expressions in long videos, with a table without header."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from apexflow.catalog import Catalog, Clip
from apexflow.datasets.emotions import canonical_emotion
from apexflow.datasets.folders import Tree, join, subject_number
from apexflow.datasets.reader import (
    ApexChoice,
    Option,
    Reader,
    clips_of_rows,
    finish,
    key_frames,
    place,
    with_choices,
)
from apexflow.datasets.rows import Row, attempt
from apexflow.datasets.tables import read_bare_rows, sheet_rows
from apexflow.errors import ApexflowError

if TYPE_CHECKING:
    from apexflow.datasets.corrections import CorrectionSource

Expressions = Literal["all", "micro", "macro"]

_NAMES = (
    "CAS(ME)^2code_final.xlsx",
    "CASME_sq_gt.xlsx",
    "CAS(ME)^2code_final(Updated).xlsx",
    "code_final.xlsx",
)
_COLUMNS = (
    "subject",
    "clip",
    "onset",
    "apex",
    "offset",
    "action_units",
    "emotion",
    "expression",
    "self_report",
)
_LAYOUT = """\
ROOT/rawpic/s15/15_0101disgustingteeth/img1.jpg, or ROOT/s15/anger1_1/img1.jpg. The table
is CAS(ME)^2code_final.xlsx, without header: subject, video, onset, apex, offset, AU,
emotion, macro or micro, self-report. Its second and third sheets tell the folders of
subjects and videos; an offset of 0 means unknown."""


def read_casme_sq(
    root: str | Path | None,
    annotations: str | Path | None = None,
    *,
    apex: ApexChoice = "annotated",
    corrections: CorrectionSource = None,
    expressions: Expressions = "all",
) -> Catalog:
    """Read CAS(ME)², the data set that its own folders call CASME_sq.

    Parameters
    ----------
    root : path or None
        The folder with ``s15/…``, or with ``rawpic/s15/…``; None reads the table alone.
    annotations : path, optional
        ``CAS(ME)^2code_final.xlsx``; found by its usual name in or beside ``root``.
    apex : {"annotated", "middle", "difference", "flow"}
        Where the apex comes from.
    corrections : path, "published" or sequence of Correction, optional
        See `apexflow.datasets.corrections`.
    expressions : {"all", "micro", "macro"}
        Which rows to keep.

    Returns
    -------
    Catalog
        Subjects as "01" (the table's number), clips as "anger1_1"; where a video is
        repeated, with its onset: "anger1_1_557".

    Raises
    ------
    ApexflowError
        The root or the table cannot be used.
    """
    return finish(casme_sq_rows(root, annotations, expressions=expressions), apex, corrections)


def casme_sq_rows(
    root: str | Path | None,
    annotations: str | Path | None = None,
    *,
    expressions: str = "all",
) -> list[Clip]:
    """Return a clip for every row of the table that is asked for."""
    if expressions not in {"all", "micro", "macro"}:
        raise ApexflowError(f"expressions must be 'all', 'micro' or 'macro'. Got {expressions!r}.")
    where = place(root, annotations, _NAMES, CASME_SQ.title, "rawpic/s15/15_0101…/img1.jpg")
    rows = read_bare_rows(where.table, _COLUMNS, required=8)
    _refuse_header(rows[0])
    folders = _Folders.read(where.tree, where.table)
    clips = clips_of_rows(
        rows,
        lambda row: [_clip(row, folders)],
        dataset=CASME_SQ.name,
        title=CASME_SQ.title,
    )
    seen = Counter((clip.subject, clip.name) for clip in clips)
    named = [
        replace(clip, name=f"{clip.name}_{clip.onset}")
        if seen[clip.subject, clip.name] > 1
        else clip
        for clip in clips
    ]
    kept = "" if expressions == "all" else expressions
    return [c for c in named if dict(c.extra).get("expression", kept).startswith(kept)]


def _refuse_header(first: Row) -> None:
    """Refuse a table that names its columns: they may stand in another order."""
    numbers = ("subject", "onset", "apex", "offset")
    if not any(subject_number(first.text(name)) is not None for name in numbers):
        raise first.error(
            f"subject must be a number, got {first.text('subject')!r}; the table has no header, "
            f"its columns are {', '.join(_COLUMNS)}"
        )


def _clip(row: Row, folders: _Folders) -> Clip:
    number = subject_number(row.identifier("subject"))
    if number is None:
        raise row.error(f"subject must be a number, got {row.text('subject')!r}", "subject")
    name = row.identifier("clip")
    frames = key_frames(row, offset_known=False)
    problems = dict(frames.pop("problems"))
    expression = attempt(problems, _expression, row)
    clip = Clip(
        dataset=CASME_SQ.name,
        subject=f"{number:02d}",
        name=name,
        root=folders.root,
        source=folders.source(number, name),
        **frames | {"offset": frames["offset"] or None},
        emotion=canonical_emotion(row.text("emotion")),
        emotion_text=row.text("emotion"),
        action_units=row.text("action_units"),
        origin=row.origin,
        extra=(
            *([("expression", expression)] if expression else []),
            ("self report", row.text("self_report")),
        ),
        problems=tuple(problems.items()),
    )
    return with_choices(clip, folders.tree)


def _expression(row: Row) -> str:
    expression = row.text("expression").casefold()
    # Without a header this column is what tells that none is missing or shifted.
    if not expression.startswith(("micro", "macro")):
        raise row.error(f"must say macro or micro, got {expression!r}", "expression")
    return expression


@dataclass(frozen=True, slots=True)
class _Folders:
    """Where the video of a row lies: subjects and videos have codes of their own on disk."""

    tree: Tree | None
    base: str
    subjects: dict[str, str]
    videos: dict[str, str]

    @classmethod
    def read(cls, tree: Tree | None, table: Path) -> _Folders:
        """Read the naming sheets: (…, folder code, subject) and (video code, video name)."""
        base = tree.base(_is_subject) if tree else ""
        return cls(tree, base, *_codes(table))

    @property
    def root(self) -> Path | None:
        return self.tree.root if self.tree else None

    def source(self, subject: int, name: str) -> str:
        code = self.subjects.get(str(subject), str(subject)).lstrip("s0")
        expected = join(self.base, f"s{code}", name)
        if self.tree is None or not code.isdigit():
            return expected
        number = int(code)
        folder = self.tree.child(self.base, lambda n: subject_number(n) == number, f"s{code}")
        if folder is None:
            return expected
        video = self.videos.get(name.partition("_")[0], "")
        stem = f"{code}_{video}"

        def is_video(candidate: str) -> bool:
            return bool(video) and candidate.startswith(stem)

        return self.tree.child(folder, is_video, name) or expected


def _codes(table: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Return the folder codes of subjects, and of videos."""
    subjects = {c[2]: c[1] for c in sheet_rows(table, 1) if len(c) > 2 and c[1] and c[2]}
    videos = {c[1]: c[0].zfill(4) for c in sheet_rows(table, 2) if len(c) > 1 and c[0] and c[1]}
    return subjects, videos


def video_names(
    root: str | Path | None, annotations: str | Path | None
) -> dict[tuple[str, str], str]:
    """Return the name "s15_0401" of each (subject, video) such as ("01", "anger1")."""
    where = place(root, annotations, _NAMES, CASME_SQ.title, "rawpic/s15/15_0101…/img1.jpg")
    subjects, videos = _codes(where.table)
    return {
        (f"{int(subject):02d}", video): f"s{code.lstrip('s0')}_{number}"
        for subject, code in subjects.items()
        if subject.isdecimal()
        for video, number in videos.items()
    }


def _is_subject(name: str) -> bool:
    return re.fullmatch(r"s[0-9]+", name, re.IGNORECASE) is not None


CASME_SQ = Reader(
    name="casme_sq",
    title="CAS(ME)²",
    layout=_LAYOUT,
    annotations=_NAMES,
    read=read_casme_sq,
    rows=casme_sq_rows,
    partly_annotated=True,
    own_options=(Option("expressions", "rows to keep", ("all", "micro", "macro"), "all"),),
)
