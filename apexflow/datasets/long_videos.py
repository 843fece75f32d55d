"""SAMM Long Videos and the long videos of CAS(ME)²: catalogs of videos with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from apexflow.catalog import Catalog, Clip
from apexflow.datasets.casme_sq import CASME_SQ, video_names
from apexflow.datasets.emotions import canonical_emotion
from apexflow.datasets.folders import Tree, join, subject_number
from apexflow.datasets.names import alike
from apexflow.datasets.notes import Note, take_note
from apexflow.datasets.reader import (
    Reader,
    finish,
    place,
    refuse_unread_column,
    unread_clip,
    with_choices,
)
from apexflow.datasets.tables import Column, Row, RowError, read_rows, whole_number
from apexflow.errors import ApexflowError

Kind = Literal["micro", "macro"]

_SAMM_NAMES = ("SAMMLV_gt.xlsx", "SAMM_longvideos_V3_release.xlsx", "SAMM_LongVideos.xlsx")
_SAMM_COLUMNS = (
    Column("subject", ("Subject",)),
    Column("clip", ("Filename",)),
    Column("onset", ("Onset", "Onset Frame")),
    Column("apex", ("Apex", "Apex Frame")),
    Column("offset", ("Offset", "Offset Frame")),
    Column("kind", ("Type",)),
    Column("action_units", ("Action Units", "AUs"), required=False),
    Column("emotion", ("Estimated Emotion", "Emotion"), required=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """One expression in a long video.

    Attributes
    ----------
    onset : int
    apex, offset : int or None
        None where the table does not say.
    kind : {"micro", "macro"}
    emotion : str
        In its canonical spelling; empty where the table has none.
    action_units : str
    origin : str
        The annotation's file and row, for messages.
    """

    onset: int
    apex: int | None
    offset: int | None
    kind: Kind
    emotion: str = ""
    action_units: str = ""
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LongVideo:
    """A video with all of its annotated expressions.

    Attributes
    ----------
    clip : Clip
        The whole video as a clip without key frames, for what takes clips.
    fps : float
        Frames per second, as published.
    intervals : tuple of Interval
        In the table's order.
    """

    clip: Clip
    fps: float
    intervals: tuple[Interval, ...]

    @property
    def name(self) -> str:
        """What the data set calls the video."""
        return self.clip.name


_Rows = tuple[tuple[LongVideo, ...], list[Clip]]  # videos, and rows that cannot be read


def read_samm_long(
    root: str | Path | None, annotations: str | Path | None = None
) -> tuple[LongVideo, ...]:
    """Read SAMM Long Videos: 147 videos of 30 subjects with 502 intervals as annotated.

    Parameters
    ----------
    root : path or None
        The folder with ``006_1/…``; None reads the table alone.
    annotations : path, optional
        ``SAMMLV_gt.xlsx``; found by its usual name in or beside ``root``.

    Returns
    -------
    tuple of LongVideo
        Data set "samm-long", subjects as "006", videos as "006_1"; those without any
        expression are not in the table. Frame numbers that the table has with fractions
        are rounded.

    Raises
    ------
    ApexflowError
        The root or the table cannot be used, or a row of it cannot be read: with an expression
        missing, no score would be right.
    """
    return _complete(_samm_videos(root, annotations))


def _samm_videos(root: str | Path | None, annotations: str | Path | None) -> _Rows:
    where = place(root, annotations, _SAMM_NAMES, "SAMM Long Videos", "006_1")
    found, unread = [], []
    for row in read_rows(where.table, _SAMM_COLUMNS, keep_problems=True):
        try:
            row.refuse_problems()
            found.append((_samm_video(row), _samm_interval(row)))
        except RowError as error:
            unread.append(unread_clip(row, error, "samm-long"))
    if not found:
        refuse_unread_column(unread, "SAMM Long Videos")
    videos = tuple(
        LongVideo(
            clip=_whole(
                "samm-long", f"{number:03d}", name, _samm_source(where.tree, name), where.tree
            ),
            fps=200,
            intervals=intervals,
        )
        for (number, name), intervals in _by_video(found)
    )
    return videos, unread


def read_casme_sq_long(
    root: str | Path | None, annotations: str | Path | None = None
) -> tuple[LongVideo, ...]:
    """Read the long videos of CAS(ME)²: 357 intervals, 57 of them micro, as annotated.

    Parameters
    ----------
    root : path or None
        The folder with ``rawpic/s15/15_0401girlcrashing``; None reads the table alone.
    annotations : path, optional
        ``CASME_sq_gt.xlsx`` or ``CAS(ME)^2code_final.xlsx``, with its naming sheets.

    Returns
    -------
    tuple of LongVideo
        Data set "casme_sq-long", subjects as in `read_casme_sq`, videos as "s15_0401". An
        offset of 0 is unknown.

    Raises
    ------
    ApexflowError
        The root or the table cannot be used, or a row of it cannot be read: with an expression
        missing, no score would be right.
    """
    return _complete(_casme_videos(root, annotations))


def _casme_videos(root: str | Path | None, annotations: str | Path | None) -> _Rows:
    from apexflow.datasets.casme_sq import casme_sq_rows

    clips = casme_sq_rows(root, annotations)
    names = video_names(root, annotations)
    groups: dict[tuple[str, str], list[Clip]] = {}
    for clip in clips:
        if clip.problems:
            continue
        video = clip.name.partition("_")[0]
        groups.setdefault((clip.subject, names.get((clip.subject, video), video)), []).append(clip)
    videos = tuple(
        LongVideo(
            clip=Clip(
                dataset="casme_sq-long",
                subject=subject,
                name=name,
                root=found[0].root,
                source=found[0].source,
                apex_source="",
                origin=found[0].origin,
            ),
            fps=30,
            intervals=tuple(map(_casme_interval, found)),
        )
        for (subject, name), found in groups.items()
    )
    return videos, [replace(c, dataset="casme_sq-long") for c in clips if c.problems]


def _complete(rows: _Rows) -> tuple[LongVideo, ...]:
    """Return the videos; refuse a table of which a row cannot be read."""
    videos, unread = rows
    if unread:
        raise ApexflowError(unread[0].problem)
    return videos


def _casme_interval(clip: Clip) -> Interval:
    assert clip.onset is not None
    written = dict(clip.extra)["expression"]
    return Interval(
        onset=clip.onset,
        apex=clip.apex,
        offset=clip.offset,
        kind="micro" if written.startswith("micro") else "macro",
        emotion=clip.emotion,
        action_units=clip.action_units,
        origin=clip.origin,
    )


def _by_video(
    found: Iterable[tuple[tuple[int, str], Interval]],
) -> list[tuple[tuple[int, str], tuple[Interval, ...]]]:
    groups: dict[tuple[int, str], list[Interval]] = {}
    for video, interval in found:
        groups.setdefault(video, []).append(interval)
    return [(video, tuple(intervals)) for video, intervals in groups.items()]


def _samm_video(row: Row) -> tuple[int, str]:
    text = row.identifier("subject")
    number = subject_number(text)
    name = row.identifier("clip")
    parts = name.split("_")
    if number is None or len(parts) != 3 or subject_number(parts[0]) != number:
        raise row.error(f"clip must be named like 006_1_2, after its subject, got {name!r}", "clip")
    return number, f"{number:03d}_{parts[1]}"


def _samm_interval(row: Row) -> Interval:
    kind = row.text("kind").casefold()
    if not kind.startswith(("micro", "macro")):
        raise row.error(f"type must say Macro or Micro, got {row.text('kind')!r}", "kind")
    onset = _rounded(row, "onset")
    if onset is None:
        raise row.error("the onset is unknown; fill in the cell, or delete the row", "onset")
    return Interval(
        onset=onset,
        apex=_rounded(row, "apex"),
        offset=_rounded(row, "offset"),
        kind="micro" if kind.startswith("micro") else "macro",
        emotion=canonical_emotion(row.text("emotion")),
        action_units=row.text("action_units"),
        origin=row.origin,
    )


def _rounded(row: Row, name: str) -> int | None:
    """Return a frame number that may have a fraction; None for -1 and unknown marks."""
    text = row.known(name)
    if not text or text in {"-1", "-1.0"}:
        return None
    whole = whole_number(text)
    if whole is not None:
        return whole
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e12:
        raise row.error(f"{name} must be a frame number, got {text!r}", name)
    take_note(Note("note", "frame-fraction", row.origin, f"{name} {text} is read as {value:.0f}"))
    return round(value)


def _samm_source(tree: Tree | None, name: str) -> str:
    if tree is None:
        return name
    base = tree.base(lambda folder: alike(folder).count("_") == 1 and _is_video(folder))
    return tree.child(base, lambda n: _same_video(n, name), name) or join(base, name)


def _is_video(folder: str) -> bool:
    subject, _, number = folder.partition("_")
    return subject_number(subject) is not None and whole_number(number) is not None


def _same_video(folder: str, name: str) -> bool:
    wanted, found = name.partition("_"), folder.partition("_")
    return _is_video(folder) and (subject_number(found[0]), whole_number(found[2])) == (
        subject_number(wanted[0]),
        whole_number(wanted[2]),
    )


def _whole(dataset: str, subject: str, name: str, source: str, tree: Tree | None) -> Clip:
    clip = Clip(
        dataset=dataset,
        subject=subject,
        name=name,
        root=tree.root if tree else None,
        source=source,
        apex_source="",
    )
    return with_choices(clip, tree)


def _interval_clips(
    read: Callable[..., _Rows],
    root: str | Path | None,
    annotations: str | Path | None = None,
) -> list[Clip]:
    """Return each annotated expression as a clip of its video, as an audit looks at it."""
    videos, unread = read(root, annotations)
    return unread + [
        replace(
            video.clip,
            name=f"{video.name}_{found.onset}-{found.offset}",
            onset=found.onset,
            apex=found.apex,
            offset=found.offset,
            apex_source="annotated",
            emotion=found.emotion,
            emotion_text=found.emotion,
            action_units=found.action_units,
            origin=found.origin,
            extra=(*video.clip.extra, ("expression", found.kind)),
        )
        for video in videos
        for found in video.intervals
    ]


def _interval_catalog(
    read: Callable[..., _Rows],
    root: str | Path | None,
    annotations: str | Path | None = None,
    **options: Any,
) -> Catalog:
    return finish(_interval_clips(read, root, annotations), **options)


def _long_reader(
    name: str,
    title: str,
    layout: str,
    names: tuple[str, ...],
    published: tuple[int, int],
    read: Callable[..., _Rows],
) -> Reader:
    return Reader(
        name=name,
        title=title,
        layout=layout,
        annotations=names,
        published={name: published},
        read=partial(_interval_catalog, read),
        rows=partial(_interval_clips, read),
        partly_annotated=True,
    )


SAMM_LONG = _long_reader(
    "samm-long",
    "SAMM Long Videos",
    """\
ROOT/006_1/…, a folder of frames or a video, with SAMMLV_gt.xlsx: Subject, Filename, Onset, Apex,
Offset, Type. Each row is an expression, audited as a clip of its video.""",
    _SAMM_NAMES,
    (502, 30),
    _samm_videos,
)
CASME_SQ_LONG = _long_reader(
    "casme_sq-long",
    "CAS(ME)², long videos",
    """\
ROOT/rawpic/s15/15_0401girlcrashing/img557.jpg, with CAS(ME)^2code_final.xlsx or CASME_sq_gt.xlsx.
Each row is an expression, audited as a clip of its video.""",
    CASME_SQ.annotations,
    (357, 22),
    _casme_videos,
)
