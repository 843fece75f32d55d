"""Annotation tables, text or workbook, as checked rows of text cells."""

from __future__ import annotations

import csv
import datetime
import io
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apexflow.errors import ApexflowError

_HEADER_WITHIN = 40  # rows; the SAMM workbook has its header on row 14
_MOST_ROWS, _MOST_COLUMNS = 200_000, 1_000
_SEPARATORS = (",", ";", "\t", "|")
UNKNOWN = frozenset({"", "/", "?", "-", "n/a", "na", "nan", "none"})
"""Cells that say that a value is not known, in lower case."""

_NUMBER = re.compile(r"([0-9]{1,12})(?:\.0+)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Column:
    """One column that a reader looks for, under any of its spellings.

    Spellings are compared without case, spaces and punctuation.
    """

    name: str
    spellings: tuple[str, ...]
    required: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: its cells by the reader's column names, as stripped text."""

    file: str
    number: int
    cells: Mapping[str, str]
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def origin(self) -> str:
        """File and row, for messages."""
        return f"{self.file} row {self.number}"

    def error(self, text: str) -> ApexflowError:
        """Return the error that names this row."""
        return ApexflowError(f"{self.origin}: {text}")

    def text(self, name: str) -> str:
        """Return a cell, empty when the table lacks the column."""
        return self.cells.get(name, "")

    def identifier(self, name: str) -> str:
        """Return a cell that names a subject or a clip: one plain path part."""
        text = self.text(name)
        if not text:
            raise self.error(f"no {name}; fill in the cell, or delete the row")
        if "/" in text or "\\" in text or text in {".", ".."} or _CONTROL.search(text):
            raise self.error(f"{name} {text!r} must be a plain name, without path parts")
        return text

    def frame(self, name: str, *, optional: bool = False) -> int | None:
        """Return a frame number; None for an unknown mark where it is optional."""
        text = self.text(name)
        if optional and text.casefold() in UNKNOWN:
            return None
        match = _NUMBER.fullmatch(text)
        if match is None:
            raise self.error(f"{name} must be a whole frame number, got {text!r}")
        return int(match[1])


@dataclass(frozen=True, slots=True)
class _Sheet:
    """Cells of one sheet as text, with the places that cannot be trusted."""

    label: str
    rows: list[tuple[int, tuple[str, ...]]]
    merged: list[tuple[int, int, int, int, str]] = field(default_factory=list)
    formulas: frozenset[tuple[int, int]] = frozenset()
    broken: str = ""


def read_rows(
    path: str | Path,
    columns: Sequence[Column],
    *,
    sheet: str | None = None,
    may_be_empty: bool = False,
) -> list[Row]:
    """Return the rows below the header that names ``columns``.

    Parameters
    ----------
    path : path
        Comma, semicolon, tab or bar separated text (UTF-8, UTF-16 or Windows-1252), or
        an .xlsx workbook. Title rows above the header are allowed; empty rows are not rows.
    columns : sequence of Column
        What the reader looks for. Other columns are kept in ``Row.extra``.
    sheet : str, optional
        The sheet of a workbook; by default the first that has the header.
    may_be_empty : bool
        Whether a header alone is a table.

    Raises
    ------
    ApexflowError
        The file cannot be read as a table, or lacks a required column.
    """
    best: tuple[int, _Sheet, int, dict[int, str]] | None = None
    for candidate in _sheets(Path(path), sheet):
        if not candidate.rows:
            continue
        found = _find_header(candidate, columns)
        if best is None or found[0] > best[0]:
            best = (found[0], candidate, found[1], found[2])
    if best is None:
        raise ApexflowError(f"{path}: the table is empty")
    _, table, header_at, names = best
    if table.broken:
        raise ApexflowError(f"{table.label} {table.broken}")
    missing = [c for c in columns if c.required and c.name not in names.values()]
    if missing:
        wanted = ", ".join(repr(c.spellings[0]) for c in missing)
        have = ", ".join(repr(cell) for cell in table.rows[header_at][1] if cell) or "nothing"
        raise ApexflowError(
            f"{table.label}: no column {wanted} (the closest row, {table.rows[header_at][0]}, "
            f"has {_shorten(have)}); is this the right table?"
        )
    _refuse_doubtful_cells(table, header_at, names)
    rows = list(_data_rows(table, header_at, names))
    if not rows and not may_be_empty:
        raise ApexflowError(
            f"{table.label}: no row below the header in row {table.rows[header_at][0]}"
        )
    return rows


def read_bare_rows(path: str | Path, names: Sequence[str], required: int) -> list[Row]:
    """Return the rows of a table without header, cells named by their position.

    Of the sheets of a workbook, or the separators of a text, the one with the widest first
    row counts. Raises `ApexflowError` when a row has fewer than ``required`` cells.
    """
    sheets = [sheet for sheet in _sheets(Path(path), None) if sheet.rows]
    if not sheets:
        raise ApexflowError(f"{path}: the table is empty")
    table = max(sheets, key=lambda sheet: sum(map(bool, sheet.rows[0][1])))
    if table.broken:
        raise ApexflowError(f"{table.label} {table.broken}")
    _refuse_doubtful_cells(table, -1, dict(enumerate(names)))
    for number, cells in table.rows:
        if len(cells) < required:
            raise ApexflowError(
                f"{table.label} row {number}: needs the columns {', '.join(names[:required])}, "
                "in this order"
            )
    return [
        Row(table.label, number, dict(zip(names, cells, strict=False)))
        for number, cells in table.rows
    ]


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
    text = _decode(path, data)
    sheets = []
    for separator in _SEPARATORS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        rows: list[tuple[int, tuple[str, ...]]] = []
        start, broken = 1, ""
        try:
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    rows.append((start, tuple(cell.strip() for cell in cells)))
                start = reader.line_num + 1
        except csv.Error as error:
            # An open quote would swallow the rows that follow it.
            broken = f"row {start}: {error}; is a quotation mark not closed?"
        sheets.append(_Sheet(path.name, rows, broken=broken))
    return sheets


def _decode(path: Path, data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\x00" not in text:
            return text
    raise ApexflowError(
        f"{path}: is neither text (UTF-8, UTF-16, Windows-1252) nor an .xlsx "
        "workbook; save it as one of these"
    )


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
        raise ApexflowError(
            f"{label}: spans {values.max_row} rows and {values.max_column} columns; "
            "delete the empty ones around the table"
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
    return _Sheet(label, rows, merged, frozenset(formulas))


def _cell_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return str(value).strip()


def _find_header(sheet: _Sheet, columns: Sequence[Column]) -> tuple[int, int, dict[int, str]]:
    """Return (score, index among the sheet's rows, column names by position) of the best row."""
    best: tuple[int, int, dict[int, str]] = (-1, 0, {})
    for at, (number, cells) in enumerate(sheet.rows[:_HEADER_WITHIN]):
        if number > _HEADER_WITHIN:
            break
        names = _match(sheet, number, cells, columns)
        score = sum(c.required for c in columns if c.name in names.values()) * 100 + len(names)
        if score > best[0]:
            best = (score, at, names)
    return best


def _match(
    sheet: _Sheet, number: int, cells: tuple[str, ...], columns: Sequence[Column]
) -> dict[int, str]:
    names: dict[int, str] = {}
    headings = [plain(cell) for cell in cells]
    for column in columns:
        for spelling in column.spellings:
            at = [i for i, heading in enumerate(headings) if heading == plain(spelling)]
            if len(at) > 1:
                raise ApexflowError(
                    f"{sheet.label} row {number}: column {spelling!r} occurs {len(at)} times"
                )
            if at:
                names[at[0]] = column.name
                break
    return names


def _refuse_doubtful_cells(sheet: _Sheet, header_at: int, names: Mapping[int, str]) -> None:
    first = sheet.rows[header_at][0] if header_at >= 0 else 1
    for top, bottom, left, right, coordinates in sheet.merged:
        if bottom >= first and any(left <= column <= right for column in names):
            raise ApexflowError(
                f"{sheet.label} row {top}: cells {coordinates} are merged; unmerge them and "
                "fill in every row"
            )
    for number, column in sorted(sheet.formulas):
        if number >= first and column in names:
            raise ApexflowError(
                f"{sheet.label} row {number}: {names[column]} is a formula without a stored "
                "value; open the workbook in a spreadsheet program and save it"
            )


def _data_rows(sheet: _Sheet, header_at: int, names: Mapping[int, str]) -> Iterable[Row]:
    header_number, header = sheet.rows[header_at]
    others = {i: cell for i, cell in enumerate(header) if cell and i not in names}
    repeated = set(names.values())
    for at, heading in list(others.items()):
        if heading in repeated:
            others[at] = f"{heading}_{at + 1}"
        repeated.add(others[at])
    for number, cells in sheet.rows[header_at + 1 :]:
        if any(cells[len(header) :]):
            raise ApexflowError(
                f"{sheet.label} row {number}: has {len(cells)} cells, the header (row "
                f"{header_number}) {len(header)}; quote cells that hold the separator"
            )
        found = {name: cells[i] for i, name in names.items() if i < len(cells)}
        extra = tuple((h, cells[i]) for i, h in others.items() if i < len(cells) and cells[i])
        yield Row(sheet.label, number, found, extra)
