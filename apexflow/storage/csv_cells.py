"""Cells of the CSV files that people open in a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# A cell that begins so is a formula to a spreadsheet, which runs it.
_FORMULA = ("=", "+", "-", "@", "\t", "\n")


def safe_row(cells: Iterable[Any]) -> list[Any]:
    """Return cells that a spreadsheet shows and does not execute.

    A text that begins with ``=``, ``+``, ``-``, ``@``, a tab or the end of a line gets an
    apostrophe in front, which spreadsheets take for "this is text". Numbers stay as they are,
    texts of numbers too. A carriage return becomes the end of a line, which is always quoted.
    """
    return [_safe(cell) if isinstance(cell, str) else cell for cell in cells]


def _safe(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and text == text.strip()
