"""Annotation tables, text or workbook, as checked rows of text cells."""

from __future__ import annotations

import csv
import datetime
import io
import re
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from apexflow.cells import clean_cell, is_unknown
from apexflow.datasets.encodings import decode_text
from apexflow.datasets.notes import Note, take_note
from apexflow.errors import ApexflowError

_HEADER_WITHIN = 40  # rows; the SAMM workbook has its header on row 14
_MOST_ROWS, _MOST_COLUMNS = 200_000, 1_000
_SEPARATORS = (",", ";", "\t", "|")
_LARGEST_FRAME = 10**12

P = ParamSpec("P")
T = TypeVar("T")

# Words that a clip may be called by all the same.
_NAMES = frozenset({"unknown", "missing", "undefined", "none", "nil"})
_NUMBER = re.compile(r"([0-9]+)(?:[.,]0*)?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# What a spreadsheet makes of "3-1", and how it writes that into a CSV.
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:T.*| \d{2}:.*)?|\d{1,4}/\d{1,2}/\d{1,4}"
    rf"|\d{{1,2}}[-. ]{_MONTH}(?:[-. ]\d{{2,4}})?|{_MONTH}[-. ]\d{{1,4}}",
    re.IGNORECASE | re.ASCII,
)
_WIDE_DIGITS = {0xFF10 + i: ord("0") + i for i in range(10)} | {0xFF0E: "."}


def whole_number(text: str, *, most_digits: int = 12) -> int | None:
    """Return the number that a text is: "6", "006", "6.0" and "6," are 6; None for others.

    The one rule for numbers of frames and subjects, whatever a spreadsheet made of them.
    """
    match = _NUMBER.fullmatch(clean_cell(text).translate(_WIDE_DIGITS))
    if match is None or len(match[1].lstrip("0")) > most_digits:
        return None
    return int(match[1])


@dataclass(frozen=True, slots=True)
class Column:
    """One column that a reader looks for, under any of its spellings.

    Spellings are compared without case, spaces and punctuation. A helper column only checks
    or describes: what is wrong in it is noted, and costs nothing else.
    """

    name: str
    spellings: tuple[str, ...]
    required: bool = True
    helper: bool = False


WHOLE_ROW = "row"
"""The column of a problem that is no single column's."""


class RowError(ApexflowError):
    """A row that cannot be read: it costs its clip alone.

    Attributes
    ----------
    column : str
        The reader's name of the column that is wrong, or `WHOLE_ROW`.
    text : str
        What is wrong, without file and row.
    """

    def __init__(self, origin: str, column: str, text: str) -> None:
        super().__init__(f"{origin}: {text}")
        self.column = column
        self.text = text


class UnreadColumnError(ApexflowError):
    """A table of which one column can be read in no row."""


def attempt(
    problems: dict[str, str], read: Callable[P, T], *args: P.args, **options: P.kwargs
) -> T | None:
    """Return what ``read`` gives; where it raises `RowError`, None, and why in ``problems``."""
    try:
        return read(*args, **options)
    except RowError as error:
        problems[error.column] = error.text
        return None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: its cells by the reader's column names, as stripped text.

    Attributes
    ----------
    file : str
        The file's name, with the sheet where there are several.
    number : int
    cells : dict of column to str
    extra : tuple of (heading, cell)
        Further columns.
    problems : dict of column to str
        Cells that cannot be read: merged ones, formulas without a value.
    headings : dict of column to str
        What the table calls the columns.
    """

    file: str
    number: int
    cells: Mapping[str, str]
    extra: tuple[tuple[str, str], ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)
    headings: Mapping[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        """File and row, for messages."""
        return f"{self.file} row {self.number}"

    def error(self, text: str, column: str = WHOLE_ROW) -> RowError:
        """Return the error that names this row, and the column as the table calls it."""
        heading = self.headings.get(column, "")
        told = f" (column {heading!r})" if heading and plain(heading) != plain(column) else ""
        remedy = "" if ";" in text else "; correct the cell, or delete the row"
        return RowError(self.origin, column, text + told + remedy)

    def refuse_problems(self) -> None:
        """Raise `RowError` for the first of the row's problems."""
        for column, what in self.problems.items():
            raise self.error(what, column)

    def text(self, name: str) -> str:
        """Return a cell, empty when the table lacks the column."""
        return self.cells.get(name, "")

    def known(self, name: str) -> str:
        """Return a cell, empty where it is a mark for an unknown value."""
        text = self.text(name)
        return "" if is_unknown(text) else text

    def identifier(self, name: str) -> str:
        """Return a cell that names a subject or a clip: one plain path part."""
        if name in self.problems:
            raise self.error(self.problems[name], name)
        text = self.text(name)
        if is_unknown(text) and text.casefold() not in _NAMES:
            said = f", it says {text!r}" if text else ""
            raise self.error(f"no {name}{said}; fill in the cell, or delete the row", name)
        if _DATE.fullmatch(text):
            raise self.error(
                f"{name} {text!r} is a date, as spreadsheets make of names; type it as text", name
            )
        if "/" in text or "\\" in text or text in {".", ".."} or _CONTROL.search(text):
            raise self.error(f"{name} {text!r} must be a plain name, without path parts", name)
        return text

    def frame(self, name: str, *, optional: bool = False, rounded: bool = False) -> int | None:
        """Return a frame number; None for an unknown mark where it is optional.

        Where it may be ``rounded``, one with a fraction is, which is noted.
        """
        if name in self.problems:
            raise self.error(self.problems[name], name)
        text = self.text(name)
        if optional and is_unknown(text):
            return None
        number = whole_number(text)
        if number is None and rounded:
            number = self._rounded(name, text)
        if number is None:
            least = "frame number from 0" if rounded else "whole frame number"
            raise self.error(f"{name} must be a {least}, got {text!r}", name)
        return number

    def _rounded(self, name: str, text: str) -> int | None:
        try:
            value = float(text)
        except ValueError:
            return None
        if not 0 <= value < _LARGEST_FRAME:
            return None
        said = f"{name} {text} is read as {value:.0f}"
        take_note(Note("note", "frame-fraction", self.origin, said))
        return round(value)

    def helper(self, name: str) -> int | None:
        """Return a number of a helper column; None where it is unknown, or not a number.

        The latter is noted for an audit.
        """
        text = self.text(name)
        number = whole_number(text)
        if number is None and not is_unknown(text):
            take_note(
                Note(
                    "warning",
                    "helper-column",
                    self.origin,
                    f"{name} is {text!r}, which is not a frame number; it is taken as unknown",
                )
            )
        return number


@dataclass(frozen=True, slots=True)
class _Sheet:
    """Cells of one sheet as text, with the places that cannot be trusted."""

    label: str
    rows: list[tuple[int, tuple[str, ...]]]
    merged: list[tuple[int, int, int, int, str]] = field(default_factory=list)
    formulas: frozenset[tuple[int, int]] = frozenset()
    broken: str = ""
    encoding: str = ""
    hidden: tuple[int, ...] = ()


def read_rows(
    path: str | Path,
    columns: Sequence[Column],
    *,
    sheet: str | None = None,
    may_be_empty: bool = False,
    keep_problems: bool = False,
) -> list[Row]:
    """Return the rows below the header that names ``columns``.

    Parameters
    ----------
    path : path
        Comma, semicolon, tab or bar separated text (UTF-8, UTF-16, or what `encodings`
        recognises), or an .xlsx workbook. Title rows above the header are allowed; empty
        rows are not rows.
    columns : sequence of Column
        What the reader looks for. Other columns are kept in ``Row.extra``.
    sheet : str, optional
        The sheet of a workbook; by default the first that has the header.
    may_be_empty : bool
        Whether a header alone is a table.
    keep_problems : bool
        Return rows with ``problems``, which cost their own clip alone; else they are refused.

    Raises
    ------
    ApexflowError
        The file cannot be read as a table, or lacks a required column.
    """
    table, header = _best_sheet(Path(path), sheet, columns)
    if table.broken:
        raise ApexflowError(f"{table.label} {table.broken}")
    header_number, headings = table.rows[header.at]
    missing = [c for c in columns if c.required and c.name not in header.names.values()]
    if missing:
        wanted = ", ".join(repr(c.spellings[0]) for c in missing)
        have = ", ".join(repr(cell) for cell in headings if cell) or "nothing"
        raise ApexflowError(
            f"{table.label}: no column {wanted} (the closest row, {header_number}, "
            f"has {_shorten(have)}); is this the right table?"
        )
    helpers = {column.name for column in columns if column.helper}
    _refuse_repeated(table, header, helpers)
    _note_encoding(table)
    _note_hidden(table)
    rows = list(_data_rows(table, header.at, header.names, helpers))
    for row in () if keep_problems else rows:
        row.refuse_problems()
    if not rows and not may_be_empty:
        raise ApexflowError(f"{table.label}: no row below the header in row {header_number}")
    return rows


@dataclass(frozen=True, slots=True)
class _Header:
    """A row that may be the header: its place, columns by position, headings that repeat."""

    at: int = 0
    names: Mapping[int, str] = field(default_factory=dict)
    repeated: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    complete: bool = False
    score: int = -1


def _best_sheet(
    path: Path, wanted: str | None, columns: Sequence[Column]
) -> tuple[_Sheet, _Header]:
    """Return the sheet, or the separator of a text, whose header fits best.

    Only what is chosen may be refused: a scratch sheet does not stand in the way of a good one.
    """
    sheets = list(_sheets(path, wanted))
    found = [(sheet, _find_header(sheet, columns)) for sheet in sheets if sheet.rows]
    broken = [sheet for sheet in sheets if sheet.broken]
    if not found:
        if broken:
            raise ApexflowError(f"{broken[0].label} {broken[0].broken}")
        raise ApexflowError(f"{path}: the table is empty")

    def is_sound(sheet: _Sheet, header: _Header) -> bool:
        return header.complete and not sheet.broken and not header.repeated

    best = max(found, key=lambda item: (is_sound(*item), item[1].score))  # the first of the best
    complete = [sheet for sheet, header in found if is_sound(sheet, header)]
    if not best[1].complete and broken:
        # What could not be read may have been the table.
        raise ApexflowError(f"{broken[0].label} {broken[0].broken}")
    others = [sheet.label for sheet in complete if sheet.label != best[0].label]
    if others:
        take_note(
            Note(
                "warning",
                "sheets",
                best[0].label,
                f"{', '.join(others)} has the table's columns as well; {best[0].label} is read",
                "delete the sheets that are not the table",
            )
        )
    return best


def _note_encoding(table: _Sheet) -> None:
    if table.encoding and not table.encoding.startswith("UTF-8"):
        take_note(
            Note(
                "note",
                "encoding",
                table.label,
                f"is not UTF-8; it was read as {table.encoding}",
                "save it as CSV in UTF-8 if names or labels look wrong",
            )
        )


def _note_hidden(table: _Sheet) -> None:
    if table.hidden:
        shown = ", ".join(map(str, table.hidden[:5])) + (" …" if len(table.hidden) > 5 else "")
        take_note(
            Note(
                "warning",
                "hidden-rows",
                table.label,
                f"{len(table.hidden)} rows are hidden, by a filter or by hand, and read: {shown}",
                "delete the rows that are not meant to be read, or show them",
            )
        )


def read_bare_rows(path: str | Path, names: Sequence[str], required: int) -> list[Row]:
    """Return the rows of a table without header, cells named by their position.

    Of the sheets of a workbook, or the separators of a text, the one with the widest first
    row counts. A row of fewer than ``required`` cells has that among its ``problems``. Raises
    `ApexflowError` for a file that cannot be read as a table.
    """
    sheets = [sheet for sheet in _sheets(Path(path), None) if sheet.rows]
    if not sheets:
        raise ApexflowError(f"{path}: the table is empty")
    table = max(sheets, key=lambda sheet: sum(map(bool, sheet.rows[0][1])))
    if table.broken:
        raise ApexflowError(f"{table.label} {table.broken}")
    _note_encoding(table)
    _note_hidden(table)
    problems = _cell_problems(table, -1, dict(enumerate(names)))
    headings = {name: chr(ord("A") + at) for at, name in enumerate(names)}
    rows = []
    for number, cells in table.rows:
        found = problems.get(number, {})
        if len(cells) < required:
            needs = f"needs the columns {', '.join(names[:required])}, in this order"
            found = {**found, WHOLE_ROW: needs}
        named = dict(zip(names, cells, strict=False))
        rows.append(Row(table.label, number, named, problems=found, headings=headings))
    return rows


def sheet_rows(path: str | Path, sheet: int) -> list[tuple[str, ...]]:
    """Return the raw text cells of the workbook's n-th sheet, empty when there is none."""
    sheets = list(_sheets(Path(path), None, keep_hidden=True))
    return [cells for _, cells in sheets[sheet].rows] if sheet < len(sheets) else []


def plain(text: str) -> str:
    """Return a heading without case, spaces and punctuation."""
    return re.sub(r"[^0-9a-z]", "", text.casefold())


def _shorten(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "…"


def _sheets(path: Path, sheet: str | None, *, keep_hidden: bool = False) -> Iterable[_Sheet]:
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise ApexflowError(f"{path} is a folder; name the annotation table itself") from None
    except OSError as error:
        raise ApexflowError(f"{path}: cannot be read ({error.strerror or error})") from None
    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise ApexflowError(
            f"{path} is an old .xls (or a locked) workbook; open it in a spreadsheet program "
            "and save it as .xlsx or .csv"
        )
    if data.startswith(b"PK"):
        return _workbook_sheets(path, data, sheet, keep_hidden)
    return _text_sheets(path, data)


def _text_sheets(path: Path, data: bytes) -> list[_Sheet]:
    text, encoding = decode_text(str(path), data)
    text = text.removeprefix("\ufeff")
    sheets = []
    for separator in _SEPARATORS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        rows: list[tuple[int, tuple[str, ...]]] = []
        start, broken = 1, ""
        try:
            for cells in reader:
                cleaned = tuple(map(clean_cell, cells))
                if any(cleaned):
                    rows.append((start, cleaned))
                start = reader.line_num + 1
        except csv.Error as error:
            # An open quote would swallow the rows that follow it.
            broken = f"row {start}: {error}; is a quotation mark not closed?"
        sheets.append(_Sheet(path.name, rows, broken=broken, encoding=encoding))
    return sheets


def _workbook_sheets(path: Path, data: bytes, sheet: str | None, keep_hidden: bool) -> list[_Sheet]:
    import openpyxl

    try:
        with warnings.catch_warnings():
            # openpyxl warns about styles and validations that it drops; cells are unaffected.
            warnings.simplefilter("ignore")
            values = openpyxl.load_workbook(io.BytesIO(data), data_only=True)
            written = openpyxl.load_workbook(io.BytesIO(data), data_only=False)
    except Exception as error:  # openpyxl fails in many ways on a damaged file
        raise ApexflowError(
            f"{path}: is not a readable .xlsx workbook ({type(error).__name__}: {error})".replace(
                "\n", " "
            )
        ) from None
    if sheet is not None:
        named = [ws for ws in values.worksheets if plain(ws.title) == plain(sheet)]
        if not named:
            titles = ", ".join(repr(ws.title) for ws in values.worksheets)
            raise ApexflowError(f"{path}: no sheet {sheet!r}; the workbook has {titles}")
        chosen = named[:1]
    else:
        chosen = [ws for ws in values.worksheets if keep_hidden or ws.sheet_state == "visible"]
    several = len(values.worksheets) > 1
    return [
        _worksheet(path.name + (f" sheet {ws.title}" if several else ""), ws, written[ws.title])
        for ws in chosen
    ]


def _worksheet(label: str, values: Any, written: Any) -> _Sheet:
    if values.max_row > _MOST_ROWS or values.max_column > _MOST_COLUMNS:
        return _Sheet(
            label,
            [],
            broken=f"spans {values.max_row} rows and {values.max_column} columns; "
            "delete the empty ones around the table",
        )
    rows, formulas = [], set()
    for number, (cells, originals) in enumerate(
        zip(values.iter_rows(values_only=True), written.iter_rows(values_only=True), strict=True),
        start=1,
    ):
        texts = tuple(_cell_text(cell) for cell in cells)
        for column, (cell, original) in enumerate(zip(cells, originals, strict=True)):
            if cell is None and original is not None:
                formulas.add((number, column))
        if any(texts):
            rows.append((number, texts))
    merged = [
        (r.min_row, r.max_row, r.min_col - 1, r.max_col - 1, r.coord)
        for r in written.merged_cells.ranges
    ]
    dimensions = written.row_dimensions
    hidden = tuple(number for number, _ in rows if dimensions[number].hidden)
    return _Sheet(label, rows, merged, frozenset(formulas), hidden=hidden)


def _cell_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return clean_cell(str(value))


def _find_header(sheet: _Sheet, columns: Sequence[Column]) -> _Header:
    """Return the row that names most of the columns."""
    best = _Header()
    for at, (number, cells) in enumerate(sheet.rows[:_HEADER_WITHIN]):
        if number > _HEADER_WITHIN:
            break
        header = _match(at, cells, columns)
        if header.score > best.score:
            best = header
    return best


def _match(at: int, cells: tuple[str, ...], columns: Sequence[Column]) -> _Header:
    names: dict[int, str] = {}
    repeated: list[tuple[str, str, tuple[int, ...]]] = []
    headings = [plain(cell) for cell in cells]
    for column in columns:
        for spelling in column.spellings:
            places = [i for i, heading in enumerate(headings) if heading == plain(spelling)]
            if len(places) > 1:
                repeated.append((column.name, spelling, tuple(places)))
            if places:
                names[places[0]] = column.name
                break
    required = [column.name for column in columns if column.required]
    there = sum(name in names.values() for name in required)
    return _Header(
        at,
        names,
        tuple(repeated),
        there == len(required),
        100 * there + len(names) - len(repeated),
    )


def _refuse_repeated(sheet: _Sheet, header: _Header, helpers: set[str]) -> None:
    """Refuse a heading that stands twice, unless both columns say the same or only help."""
    number, _ = sheet.rows[header.at]
    for name, spelling, places in header.repeated:
        columns = [[_at(cells, i) for _, cells in sheet.rows[header.at + 1 :]] for i in places]
        if name not in helpers and any(column != columns[0] for column in columns[1:]):
            raise ApexflowError(
                f"{sheet.label} row {number}: column {spelling!r} occurs {len(places)} times, "
                "with different cells; delete or rename the others"
            )
        take_note(
            Note(
                "note",
                "column-repeated",
                f"{sheet.label} row {number}",
                f"column {spelling!r} occurs {len(places)} times; the first is read",
            )
        )


def _at(cells: tuple[str, ...], i: int) -> str:
    return cells[i] if i < len(cells) else ""


def _cell_problems(
    sheet: _Sheet, header_at: int, names: Mapping[int, str]
) -> dict[int, dict[str, str]]:
    """Return, by row and column, why a cell below the header does not say what it means.

    That are merged cells and formulas without a value. Raises `ApexflowError` where the header
    itself is merged with what lies below it: then the columns are in doubt.
    """
    header = sheet.rows[header_at][0] if header_at >= 0 else 0
    found: dict[int, dict[str, str]] = {}
    numbers = [number for number, _ in sheet.rows[header_at + 1 :]]
    for top, bottom, left, right, coordinates in sheet.merged:
        why = f"cells {coordinates} are merged; unmerge them and fill in every row"
        columns = [name for column, name in names.items() if left <= column <= right]
        if columns and top <= header <= bottom:
            raise ApexflowError(f"{sheet.label} row {top}: {why}")
        for number in numbers[bisect_left(numbers, top) : bisect_right(numbers, bottom)]:
            found.setdefault(number, {}).update(dict.fromkeys(columns, why))
    for number, column in sorted(sheet.formulas):
        if number > header and column in names:
            found.setdefault(number, {})[names[column]] = (
                f"{names[column]} is a formula without a stored value; open the workbook in a "
                "spreadsheet program and save it"
            )
    return found


def _data_rows(
    sheet: _Sheet, header_at: int, names: Mapping[int, str], helpers: set[str]
) -> Iterable[Row]:
    header_number, header = sheet.rows[header_at]
    problems = _cell_problems(sheet, header_at, names)
    headings = {name: header[i] for i, name in names.items()}
    others = {i: cell for i, cell in enumerate(header) if cell and i not in names}
    repeated = set(names.values())
    for at, heading in list(others.items()):
        if heading in repeated:
            others[at] = f"{heading}_{at + 1}"
        repeated.add(others[at])
    for number, cells in sheet.rows[header_at + 1 :]:
        if _is_header(cells, header, names):
            take_note(
                Note(
                    "note",
                    "header-repeated",
                    f"{sheet.label} row {number}",
                    "the header is repeated; the row is passed over",
                )
            )
            continue
        wrong = problems.get(number, {})
        _note_helpers(f"{sheet.label} row {number}", wrong, helpers)
        found = {
            name: "" if name in wrong else cells[i] for i, name in names.items() if i < len(cells)
        }
        wrong = {name: why for name, why in wrong.items() if name not in helpers}
        if any(cells[len(header) :]):
            wrong[WHOLE_ROW] = (
                f"has {len(cells)} cells, the header (row {header_number}) {len(header)}; "
                "quote cells that hold the separator"
            )
        extra = tuple((h, cells[i]) for i, h in others.items() if i < len(cells) and cells[i])
        yield Row(sheet.label, number, found, extra, wrong, headings)


def _note_helpers(origin: str, problems: Mapping[str, str], helpers: set[str]) -> None:
    """Note what is wrong with cells that only help: they are taken as unknown."""
    for name in helpers & set(problems):
        why = problems[name].partition(";")[0]
        take_note(Note("warning", "helper-column", origin, f"{why}; it is taken as unknown"))


def _is_header(cells: tuple[str, ...], header: tuple[str, ...], names: Mapping[int, str]) -> bool:
    """Tell whether a row repeats the header, as where tables were joined."""
    return all(plain(_at(cells, i)) == plain(header[i]) for i in names)
