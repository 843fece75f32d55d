"""Rows of annotation tables: cells as text, numbers and names in them, what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from apexflow.cells import clean_cell, is_unknown
from apexflow.datasets.notes import Note, take_note
from apexflow.errors import ApexflowError

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


def plain(text: str) -> str:
    """Return a heading without case, spaces and punctuation."""
    return re.sub(r"[^0-9a-z]", "", text.casefold())


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
