"""Intervals of videos, from whatever table holds them: checked, sorted by nothing, plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, get_args

from apexflow.datasets.interval_rows import interval_rows
from apexflow.datasets.long_videos import Kind
from apexflow.datasets.notes import Note, collect_notes
from apexflow.datasets.rows import Row, RowError, attempt, whole_number
from apexflow.errors import ApexflowError

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One interval of a video.

    Attributes
    ----------
    video : str
    onset, offset : int
        The first and the last frame; both belong to it.
    kind : {"micro", "macro", ""}
        Empty where nobody says.
    dataset : str
        Empty where nobody says.
    emotion : str
        The class that a table gives it, in lower case; empty where it gives none.
    """

    video: str
    onset: int
    offset: int
    kind: str = ""
    dataset: str = ""
    emotion: str = ""

    def __len__(self) -> int:
        """Return how many frames it lasts, both ends included."""
        return self.offset - self.onset + 1


@dataclass(frozen=True, slots=True)
class Intervals(Sequence[Span]):
    """Intervals of one or many videos, in the order of their table.

    Two of them are joined with ``+``.

    Attributes
    ----------
    spans : tuple of Span
    notes : tuple of str
        What the table left in doubt, one line each.
    left_out : tuple of str
        The rows that could not be read, or repeat another: they are not among the spans. One
        line each: file, row, column, value, remedy.
    """

    spans: tuple[Span, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.spans)

    def __iter__(self) -> Iterator[Span]:
        return iter(self.spans)

    def __getitem__(self, index: Any) -> Any:
        return self.spans[index]

    def __add__(self, other: Intervals) -> Intervals:
        return Intervals(
            self.spans + other.spans, self.notes + other.notes, self.left_out + other.left_out
        )

    def of(self, kind: str) -> Intervals:
        """Return those of one kind."""
        return replace(self, spans=tuple(span for span in self if span.kind == kind))

    def lasting(self, least: int = 1, most: int | None = None) -> Intervals:
        """Return those that last ``least`` to ``most`` frames, both ends of each included."""
        longest = math.inf if most is None else most
        return replace(self, spans=tuple(s for s in self if least <= len(s) <= longest))


IntervalSource = Any
"""What `read_intervals` takes."""


def read_intervals(
    source: IntervalSource, *, kind: Kind | None = None, name: str = "intervals"
) -> Intervals:
    """Read intervals by video.

    Parameters
    ----------
    source : path, table, mapping or sequence
        - A CSV or workbook with the columns video, onset, offset, and as it likes kind (micro
          or macro), apex, dataset, emotion. The workbooks of SAMM Long Videos and of CAS(ME)²
          are read as they are published.
        - A DataFrame, or a mapping of columns, with the same names.
        - A sequence of mappings, or of (video, onset, offset[, kind]), or an array of them; an
          array (N, 2) is (onset, offset) of one video without a name.
        - What `apexflow.datasets.read_samm_long` and `read_casme_sq_long` return.
    kind : {"micro", "macro"}, optional
        The kind of all of them, where ``source`` does not say.
    name : str
        What messages call a source that is not a file.

    Returns
    -------
    Intervals
        Both ends belong to an interval. An offset of 0 behind a later onset is unknown and
        stands for the apex. Numbers with fractions are rounded, and noted. A row that cannot be
        read (a frame number that is none, an offset before its onset, another kind than micro
        and macro), or that repeats another, is ``left_out``.

    Raises
    ------
    ApexflowError
        For a missing column, a table of which no row can be read, and one that says another
        kind than ``kind``.
    """
    if kind is not None and kind not in KINDS:
        raise ApexflowError(f"kind must be one of {', '.join(KINDS)}. Got {kind!r}.")
    if isinstance(source, Intervals):
        return source if kind is None else _with_kind(source, kind)
    with collect_notes() as notes:
        spans, left_out = _read(list(interval_rows(source, name)))
    found = Intervals(spans, tuple(_summary(notes)), left_out)
    return found if kind is None else _with_kind(found, kind)


def _with_kind(intervals: Intervals, kind: Kind) -> Intervals:
    other = next((span for span in intervals if span.kind not in {"", kind}), None)
    if other is not None:
        raise ApexflowError(f"the table says {other.kind} where kind={kind!r} was asked for")
    return replace(intervals, spans=tuple(replace(span, kind=kind) for span in intervals))


def _summary(notes: list[Note]) -> Iterator[str]:
    """Say each rule's doubts in one line: how many, and the first of them."""
    for rule in dict.fromkeys(note.rule for note in notes):
        of_rule = [note for note in notes if note.rule == rule]
        first = of_rule[0]
        more = f" (and {len(of_rule) - 1} more)" if len(of_rule) > 1 else ""
        yield f"{first.where}: {first.message}{more}"


def _read(rows: Sequence[Row]) -> tuple[tuple[Span, ...], tuple[str, ...]]:
    """Return the spans, and a line for each row that gives none.

    Raises `ApexflowError` where no row gives any.
    """
    seen: dict[Span, Row] = {}
    spans, left_out = [], []
    for row in rows:
        try:
            span = _span(row)
            _refuse_repeated(row, span, seen)
            spans.append(span)
        except RowError as error:
            left_out.append(str(error))
    if left_out and not spans:
        others = f"; none of its {len(rows)} rows can be read" if len(rows) > 1 else ""
        raise ApexflowError(left_out[0] + others)
    return tuple(spans), tuple(left_out)


def _span(row: Row) -> Span:
    """Return a row's interval; raises `RowError` that names all that is wrong."""
    if row.problems:
        raise row.error(_sentences(row.problems))
    problems: dict[str, str] = {}
    video = attempt(problems, _video, row)
    onset = attempt(problems, row.frame, "onset", rounded=True)
    offset = attempt(problems, _offset, row, onset)
    kind = attempt(problems, _kind, row)
    if video is None or onset is None or offset is None or kind is None:
        raise row.error(_sentences(problems))
    return Span(
        video=video,
        onset=onset,
        offset=offset,
        kind=kind,
        dataset=row.known("dataset"),
        emotion=row.known("emotion").casefold(),
    )


def _sentences(problems: Mapping[str, str]) -> str:
    return ". ".join(dict.fromkeys(problems.values()))


def _video(row: Row) -> str:
    """Return a video's name; numbers by their value, so that 7, 7.0 and 007 are one."""
    text = row.known("video")
    if not text:
        raise row.error("no video; fill in the cell, or delete the row", "video")
    number = whole_number(text)
    return text if number is None else str(number)


def _offset(row: Row, onset: int | None) -> int | None:
    """Return the last frame; the apex where it is 0 behind a later onset, that is unknown."""
    offset = row.frame("offset", rounded=True)
    if onset is None or offset is None:
        return offset
    if offset == 0 < onset:
        offset = row.frame("apex", optional=True, rounded=True)
        if not offset:
            raise row.error(
                "the offset is 0, that is unknown, and no apex can stand for it", "offset"
            )
    if offset < onset:
        raise row.error(f"offset {offset} lies before onset {onset}", "offset")
    return offset


def _kind(row: Row) -> str:
    text = row.known("kind").casefold()
    found = next((kind for kind in KINDS if text.startswith(kind)), None)
    if text and found is None:
        raise row.error(f"kind must be micro or macro, got {row.text('kind')!r}", "kind")
    return found or ""


def _refuse_repeated(row: Row, span: Span, seen: dict[Span, Row]) -> None:
    """Raise `RowError` for a second row of one interval, whatever emotion it gives it."""
    first = seen.setdefault(replace(span, emotion=""), row)
    if first is not row:
        raise row.error(
            f"repeats row {first.number}: {span.kind or 'interval'} {span.onset} to "
            f"{span.offset} of {span.video}; that one is read, delete either"
        )


def groups(spans: Iterable[Span], *, kinds: bool) -> dict[tuple[str, str, str], list[Span]]:
    """Return spans by (data set, video, kind); the kind is empty unless ``kinds``."""
    found: dict[tuple[str, str, str], list[Span]] = {}
    for span, with_kind in zip(spans, repeat(kinds)):
        key = span.dataset, span.video, span.kind if with_kind else ""
        found.setdefault(key, []).append(span)
    return found
