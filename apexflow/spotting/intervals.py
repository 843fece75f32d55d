"""Intervals of videos, from whatever table holds them: checked, sorted by nothing, plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any, get_args

from apexflow.cells import clean_cell
from apexflow.datasets.long_videos import Kind, LongVideo, read_casme_sq_long, read_samm_long
from apexflow.datasets.notes import Note, collect_notes
from apexflow.datasets.rows import (
    WHOLE_ROW,
    Column,
    Row,
    RowError,
    UnreadColumnError,
    attempt,
    plain,
    whole_number,
)
from apexflow.datasets.tables import read_rows
from apexflow.errors import ApexflowError

KINDS: tuple[Kind, ...] = get_args(Kind)

_COLUMNS = (
    Column("video", ("video",)),
    Column("onset", ("onset", "onset frame")),
    Column("offset", ("offset", "offset frame")),
    Column("apex", ("apex", "apex frame"), required=False),
    Column("kind", ("kind", "type"), required=False),
    Column("dataset", ("dataset", "data set"), required=False),
    Column("emotion", ("emotion", "label"), required=False),
)
_PLACES = ("video", "onset", "offset", "kind")


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
        spans, left_out = _read(list(_rows(source, name)))
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


def _rows(source: Any, name: str) -> Iterable[Row]:
    if isinstance(source, str | Path):
        return _file_rows(Path(source))
    if hasattr(source, "columns"):  # a DataFrame, pandas' or another's
        return _column_rows({str(key): list(source[key]) for key in source.columns}, name)
    if isinstance(source, Mapping):
        return _column_rows({str(key): _listed(source[key]) for key in source}, name)
    if isinstance(source, Iterable):
        return _item_rows(_listed(source), name)
    raise ApexflowError(
        f"{name} must be a path, a table or a sequence of (video, onset, offset[, kind]). "
        f"Got {type(source).__name__}."
    )


def _listed(values: Any) -> list[Any]:
    # NumPy's own lists hold plain numbers; its record arrays list plain tuples, without names.
    names = getattr(getattr(values, "dtype", None), "names", None)
    if names:
        return [dict(zip(names, item, strict=True)) for item in values.tolist()]
    if hasattr(values, "tolist"):
        values = values.tolist()
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ApexflowError(f"a column must be a sequence of values. Got {values!r}.")
    return list(values)


def _file_rows(path: Path) -> Iterable[Row]:
    try:
        return read_rows(path, _COLUMNS, may_be_empty=True, keep_problems=True)
    except ApexflowError as error:
        return list(_video_rows(_published(path, error)))


def _published(path: Path, error: ApexflowError) -> tuple[LongVideo, ...]:
    """Read a table as one that is published; raise ``error`` where it is none of them."""
    try:
        return read_samm_long(None, path)
    except UnreadColumnError:  # its header is there
        raise
    except ApexflowError:
        pass
    try:
        return read_casme_sq_long(None, path)
    except ApexflowError:
        raise error from None


def _video_rows(videos: Iterable[LongVideo]) -> Iterator[Row]:
    for video in videos:
        for clip in video.unread:
            yield Row(*_place(clip.origin, video.name, 0), {}, problems=dict(clip.problems))
        for number, interval in enumerate(video.intervals, 1):
            cells = {
                "video": video.name,
                "onset": str(interval.onset),
                "offset": str(interval.offset or 0),
                "apex": "" if interval.apex is None else str(interval.apex),
                "kind": interval.kind,
                "dataset": video.clip.dataset,
                "emotion": interval.emotion,
            }
            yield Row(*_place(interval.origin, video.name, number), cells)


def _place(origin: str, video: str, number: int) -> tuple[str, int]:
    """Return file and row of an annotation; where it says none, the video and the number."""
    file, _, row = origin.rpartition(" row ")
    return file or video, int(row) if row.isdigit() else number


_SPELLED = {plain(text): column.name for column in _COLUMNS for text in column.spellings}


def _known(cells: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is ours of it, by our names of the columns."""
    return {_SPELLED[plain(key)]: value for key, value in cells.items() if plain(key) in _SPELLED}


def _missing(known: Mapping[str, Any], given: Iterable[str]) -> str:
    missing = [column.name for column in _COLUMNS if column.required and column.name not in known]
    have = ", ".join(map(repr, given)) or "nothing"
    return f"no column {', '.join(map(repr, missing))}; it has {have}" if missing else ""


def _column_rows(columns: Mapping[str, list[Any]], name: str) -> Iterator[Row]:
    known = _known(columns)
    if missing := _missing(known, columns):
        raise ApexflowError(f"{name}: {missing}")
    lengths = {key: len(values) for key, values in known.items()}
    if len(set(lengths.values())) > 1:
        raise ApexflowError(f"{name}: columns must be of one length. Got {lengths}.")
    for number, cells in enumerate(zip(*known.values(), strict=True), 1):
        yield Row(name, number, dict(zip(known, map(_cell, cells), strict=True)))


def _item_rows(items: list[Any], name: str) -> Iterator[Row]:
    for number, item in enumerate(items, 1):
        if isinstance(item, LongVideo):
            yield from _video_rows([item])
        elif isinstance(item, Span):
            cells = {key: _cell(getattr(item, key)) for key in _SPAN_KEYS}
            yield Row(name, number, cells)
        elif isinstance(item, Mapping):
            given = {str(key): value for key, value in item.items()}
            known = _known(given)
            wrong = _missing(known, given)
            cells = {key: _cell(value) for key, value in known.items()}
            yield Row(name, number, cells, problems={WHOLE_ROW: wrong} if wrong else {})
        else:
            yield _tuple_row(item, name, number)


_SPAN_KEYS = ("video", "onset", "offset", "kind", "dataset", "emotion")


def _tuple_row(item: Any, name: str, number: int) -> Row:
    several = isinstance(item, Iterable) and not isinstance(item, str)
    values = list(item) if several else [item]
    values = ["video", *values] if len(values) == 2 else values
    if not 3 <= len(values) <= len(_PLACES):
        wrong = f"must be (video, onset, offset[, kind]), got {item!r}"
        return Row(name, number, {}, problems={WHOLE_ROW: wrong})
    return Row(name, number, dict(zip(_PLACES, map(_cell, values), strict=False)))


def _cell(value: Any) -> str:
    return "" if value is None else clean_cell(str(value))


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
