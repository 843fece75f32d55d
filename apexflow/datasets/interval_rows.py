"""Rows of intervals, from whatever holds them: files, data frames, arrays, sequences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from apexflow.cells import clean_cell
from apexflow.datasets.long_videos import LongVideo, read_casme_sq_long, read_samm_long
from apexflow.datasets.rows import WHOLE_ROW, Column, Row, UnreadColumnError, plain
from apexflow.datasets.tables import read_rows
from apexflow.errors import ApexflowError

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


def interval_rows(source: Any, name: str) -> Iterable[Row]:
    """Yield the rows of a table of intervals, with what cannot be read among their problems.

    Parameters
    ----------
    source : path, DataFrame, mapping of columns, or iterable
        The items of an iterable are mappings, dataclasses, (video, onset, offset[, kind]), (onset,
        offset), or `LongVideo`. A file may also be a table of a data set as it is published.
    name : str
        What messages call a source that is not a file.

    Raises
    ------
    ApexflowError
        The source is none of these, a file cannot be read, columns are missing or differ in length.
    """
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
        elif isinstance(item, Mapping):
            yield _mapping_row(item, name, number)
        elif is_dataclass(item) and not isinstance(item, type):
            yield _mapping_row(asdict(item), name, number)
        else:
            yield _tuple_row(item, name, number)


def _mapping_row(item: Mapping[Any, Any], name: str, number: int) -> Row:
    given = {str(key): value for key, value in item.items()}
    known = _known(given)
    wrong = _missing(known, given)
    cells = {key: _cell(value) for key, value in known.items()}
    return Row(name, number, cells, problems={WHOLE_ROW: wrong} if wrong else {})


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
