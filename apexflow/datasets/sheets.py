"""Sheets of text files and workbooks: every cell as text, and the places not to be trusted."""

from __future__ import annotations

import csv
import datetime
import io
import warnings
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apexflow.cells import clean_cell
from apexflow.datasets.encodings import decode_text
from apexflow.datasets.rows import plain
from apexflow.errors import ApexflowError

_MOST_ROWS, _MOST_COLUMNS = 200_000, 1_000
_SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True, slots=True)
class Sheet:
    """Cells of one sheet as text, with the places that cannot be trusted."""

    label: str
    rows: list[tuple[int, tuple[str, ...]]]
    merged: list[tuple[int, int, int, int, str]] = field(default_factory=list)
    formulas: frozenset[tuple[int, int]] = frozenset()
    broken: str = ""
    encoding: str = ""
    hidden: tuple[int, ...] = ()


def read_sheets(path: Path, sheet: str | None, *, keep_hidden: bool = False) -> Iterable[Sheet]:
    """Return a workbook's sheets, or the one that is named; a text's readings by each separator.

    Hidden sheets are left out unless they are wanted. A sheet that cannot be read says why in
    ``broken``. Raises `ApexflowError` for a file that is neither text nor workbook.
    """
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


def _text_sheets(path: Path, data: bytes) -> list[Sheet]:
    text, encoding = decode_text(str(path), data)
    text = text.removeprefix("\ufeff")
    sheets = []
    for separator in _SEPARATORS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        rows: list[tuple[int, tuple[str, ...]]] = []
        start, broken = 1, ""
        widths: set[int] = set()
        try:
            for cells in reader:
                if _holds_rows(cells, separator, widths):
                    raise csv.Error("a quoted cell holds the rows below it")
                cleaned = tuple(map(clean_cell, cells))
                if any(cleaned):
                    rows.append((start, cleaned))
                widths.add(len(cells))
                start = reader.line_num + 1
        except csv.Error as error:
            # An open quote would swallow the rows that follow it.
            broken = f"row {start}: {error}; is a quotation mark not closed?"
        sheets.append(Sheet(path.name, rows, broken=broken, encoding=encoding))
    return sheets


def _holds_rows(cells: list[str], separator: str, widths: Set[int]) -> bool:
    """Tell whether a cell holds lines that are rows: two quotation marks, each alone, do that.

    Rows have the width of this one or of one before; in a header, any from three cells on.
    """
    inner = (line for cell in cells if "\n" in cell for line in cell.splitlines()[1:])
    found = {line.count(separator) + 1 for line in inner} - {1, 2}
    if widths:
        return bool(found & {len(cells), *widths})
    return len(cells) > 2 and bool(found)


def _workbook_sheets(path: Path, data: bytes, sheet: str | None, keep_hidden: bool) -> list[Sheet]:
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


def _worksheet(label: str, values: Any, written: Any) -> Sheet:
    if values.max_row > _MOST_ROWS or values.max_column > _MOST_COLUMNS:
        return Sheet(
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
    return Sheet(label, rows, merged, frozenset(formulas), hidden=hidden)


def _cell_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    return clean_cell(str(value))
