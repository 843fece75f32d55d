"""Annotation tables, text or workbook, as checked rows of text cells."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from apexflow.datasets.notes import Note, take_note
from apexflow.datasets.rows import WHOLE_ROW, Column, Row, plain
from apexflow.datasets.sheets import Sheet, read_sheets
from apexflow.errors import ApexflowError

_HEADER_WITHIN = 40  # rows; the SAMM workbook has its header on row 14


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


def read_bare_rows(path: str | Path, names: Sequence[str], required: int) -> list[Row]:
    """Return the rows of a table without header, cells named by their position.

    Of the sheets of a workbook, or the separators of a text, the one with the widest first
    row counts. A row of fewer than ``required`` cells has that among its ``problems``. Raises
    `ApexflowError` for a file that cannot be read as a table.
    """
    sheets = [sheet for sheet in read_sheets(Path(path), None) if sheet.rows]
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
    sheets = list(read_sheets(Path(path), None, keep_hidden=True))
    return [cells for _, cells in sheets[sheet].rows] if sheet < len(sheets) else []


@dataclass(frozen=True, slots=True)
class _Header:
    """A row that may be the header: its place, columns by position, headings that repeat."""

    at: int = 0
    names: Mapping[int, str] = field(default_factory=dict)
    repeated: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    complete: bool = False
    score: int = -1


def _best_sheet(path: Path, wanted: str | None, columns: Sequence[Column]) -> tuple[Sheet, _Header]:
    """Return the sheet, or the separator of a text, whose header fits best.

    Only what is chosen may be refused: a scratch sheet does not stand in the way of a good one.
    """
    sheets = list(read_sheets(path, wanted))
    found = [(sheet, _find_header(sheet, columns)) for sheet in sheets if sheet.rows]
    broken = [sheet for sheet in sheets if sheet.broken]
    if not found:
        if broken:
            raise ApexflowError(f"{broken[0].label} {broken[0].broken}")
        raise ApexflowError(f"{path}: the table is empty")

    def is_sound(sheet: Sheet, header: _Header) -> bool:
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


def _find_header(sheet: Sheet, columns: Sequence[Column]) -> _Header:
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


def _refuse_repeated(sheet: Sheet, header: _Header, helpers: set[str]) -> None:
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
    sheet: Sheet, header_at: int, names: Mapping[int, str]
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
    sheet: Sheet, header_at: int, names: Mapping[int, str], helpers: set[str]
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


def _note_encoding(table: Sheet) -> None:
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


def _note_hidden(table: Sheet) -> None:
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


def _shorten(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "…"
