"""SAMM Long Videos and the long videos of CAS(ME)²: catalogs of videos with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from apexflow.catalog import UNREAD_SUBJECT, Catalog, Clip
from apexflow.datasets.casme_sq import CASME_SQ, video_names
from apexflow.datasets.emotions import canonical_emotion
from apexflow.datasets.folders import Tree, join, subject_number
from apexflow.datasets.names import alike
from apexflow.datasets.reader import (
    Reader,
    finish,
    place,
    refuse_unread_column,
    unread_clip,
    with_choices,
)
from apexflow.datasets.rows import Column, Row, attempt, whole_number
from apexflow.datasets.tables import read_rows

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
    unread : tuple of Clip
        The table's rows of this video that cannot be read, with their ``problems``. A row that
        says no video which can be read is a video "row 5" of the subject "?", without intervals:
        its ``clip`` has the problems too.
    """

    clip: Clip
    fps: float
    intervals: tuple[Interval, ...]
    unread: tuple[Clip, ...] = ()

    @property
    def name(self) -> str:
        """What the data set calls the video."""
        return self.clip.name


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
        are rounded. A row that cannot be read is in its video's ``unread``.

    Raises
    ------
    ApexflowError
        The root or the table cannot be used.
    """
    where = place(root, annotations, _SAMM_NAMES, "SAMM Long Videos", "006_1")
    rows = read_rows(where.table, _SAMM_COLUMNS, keep_problems=True)
    clip_of = cache(partial(_samm_clip, where.tree))  # a video has many rows
    videos = _by_video((_samm_row(row, clip_of) for row in rows), fps=200)
    if not any(video.intervals for video in videos):
        refuse_unread_column([one for v in videos for one in v.unread], "SAMM Long Videos")
    return videos


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
        offset of 0 is unknown. A row that cannot be read is in its video's ``unread``.

    Raises
    ------
    ApexflowError
        The root or the table cannot be used.
    """
    from apexflow.datasets.casme_sq import casme_sq_rows

    clips = casme_sq_rows(root, annotations)
    names = video_names(root, annotations)
    return _by_video((_casme_row(clip, names) for clip in clips), fps=30)


_Row = tuple[Clip, Interval | Clip]
"""The video of a row (the row itself where it names none), and its interval or what it breaks."""


def _by_video(rows: Iterable[_Row], *, fps: float) -> tuple[LongVideo, ...]:
    groups: dict[tuple[str, str, str], list[_Row]] = {}
    for row in rows:
        groups.setdefault(row[0].key, []).append(row)
    return tuple(
        LongVideo(
            clip=group[0][0],
            fps=fps,
            intervals=tuple(found for _, found in group if isinstance(found, Interval)),
            unread=tuple(found for _, found in group if isinstance(found, Clip)),
        )
        for group in groups.values()
    )


def _casme_row(clip: Clip, names: Mapping[tuple[str, str], str]) -> _Row:
    clip = replace(clip, dataset="casme_sq-long")
    if clip.subject == UNREAD_SUBJECT:
        return clip, clip
    code = clip.name.partition("_")[0]
    video = Clip(
        dataset=clip.dataset,
        subject=clip.subject,
        name=names.get((clip.subject, code), code),
        root=clip.root,
        source=clip.source,
        apex_source="",
        origin=clip.origin,
    )
    return video, clip if clip.problems else _casme_interval(clip)


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


def _samm_row(row: Row, clip_of: Callable[[int, str], Clip]) -> _Row:
    problems = dict(row.problems)
    named = attempt(problems, _samm_video, row)
    kind = attempt(problems, _samm_kind, row)
    onset = attempt(problems, _samm_onset, row)
    apex, offset = (attempt(problems, _samm_frame, row, name) for name in ("apex", "offset"))
    if named is None:
        unread = unread_clip(row, problems, "samm-long")
        return unread, unread
    video = clip_of(*named)
    if problems or kind is None or onset is None:
        expression = row.identifier("clip")
        broken = tuple(problems.items())
        return video, replace(video, name=expression, origin=row.origin, problems=broken)
    return video, Interval(
        onset=onset,
        apex=apex,
        offset=offset,
        kind=kind,
        emotion=canonical_emotion(row.text("emotion")),
        action_units=row.text("action_units"),
        origin=row.origin,
    )


def _samm_video(row: Row) -> tuple[int, str]:
    text = row.identifier("subject")
    number = subject_number(text)
    name = row.identifier("clip")
    parts = name.split("_")
    if number is None or len(parts) != 3 or subject_number(parts[0]) != number:
        raise row.error(f"clip must be named like 006_1_2, after its subject, got {name!r}", "clip")
    return number, f"{number:03d}_{parts[1]}"


def _samm_kind(row: Row) -> Kind:
    text = row.text("kind").casefold()
    if not text.startswith(("micro", "macro")):
        raise row.error(f"type must say Macro or Micro, got {row.text('kind')!r}", "kind")
    return "micro" if text.startswith("micro") else "macro"


def _samm_onset(row: Row) -> int:
    onset = _samm_frame(row, "onset")
    if onset is None:
        raise row.error("the onset is unknown; fill in the cell, or delete the row", "onset")
    return onset


def _samm_frame(row: Row, name: str) -> int | None:
    """Return a frame number that may have a fraction; None for -1 and unknown marks."""
    if row.text(name) in {"-1", "-1.0"}:
        return None
    return row.frame(name, optional=True, rounded=True)


def _samm_clip(tree: Tree | None, number: int, name: str) -> Clip:
    clip = Clip(
        dataset="samm-long",
        subject=f"{number:03d}",
        name=name,
        root=tree.root if tree else None,
        source=_samm_source(tree, name),
        apex_source="",
    )
    return with_choices(clip, tree)


def _samm_source(tree: Tree | None, name: str) -> str:
    if tree is None:
        return name
    base = tree.base(lambda folder: alike(folder).count("_") == 1 and _is_video(folder))
    expected = join(base, name)
    folder = tree.child(base, lambda n: _same_video(n, name), name)
    if folder is not None or tree.choices(expected):
        return folder or expected
    videos = [join(base, n) for n in tree.videos(base) if _same_video(Path(n).stem, name)]
    if len(videos) > 1:
        tree.doubt(expected, videos)
    return videos[0] if len(videos) == 1 else expected


def _is_video(folder: str) -> bool:
    subject, _, number = folder.partition("_")
    return subject_number(subject) is not None and whole_number(number) is not None


def _same_video(folder: str, name: str) -> bool:
    wanted, found = name.partition("_"), folder.partition("_")
    return _is_video(folder) and (subject_number(found[0]), whole_number(found[2])) == (
        subject_number(wanted[0]),
        whole_number(wanted[2]),
    )


def _interval_clips(
    read: Callable[..., tuple[LongVideo, ...]],
    root: str | Path | None,
    annotations: str | Path | None = None,
) -> list[Clip]:
    """Return each annotated expression as a clip of its video, as an audit looks at it."""
    videos = read(root, annotations)
    return [
        clip
        for video in videos
        for clip in (*video.unread, *(_interval_clip(video, found) for found in video.intervals))
    ]


def _interval_clip(video: LongVideo, found: Interval) -> Clip:
    return replace(
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


def _interval_catalog(
    read: Callable[..., tuple[LongVideo, ...]],
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
    read: Callable[..., tuple[LongVideo, ...]],
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
    read_samm_long,
)
CASME_SQ_LONG = _long_reader(
    "casme_sq-long",
    "CAS(ME)², long videos",
    """\
ROOT/rawpic/s15/15_0401girlcrashing/img557.jpg, with CAS(ME)^2code_final.xlsx or CASME_sq_gt.xlsx.
Each row is an expression, audited as a clip of its video.""",
    CASME_SQ.annotations,
    (357, 22),
    read_casme_sq_long,
)
