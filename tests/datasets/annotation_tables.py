"""Small annotation tables and folder trees with the quirks of the real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import openpyxl

from apexflow.catalog import Catalog
from apexflow.datasets import read_samm
from apexflow.datasets.notes import collect_notes

SAMM_HEADER = (
    "Subject",
    "Filename",
    "Inducement Code",
    "Onset Frame",
    "Apex Frame",
    "Offset Frame",
    "Duration",
    "Micro",
    "Action Units",
    "Estimated Emotion",
    "Objective Classes",
    "Notes",
)
SAMM_ROWS = (
    ("006", "006_1_2", 1, 5562, 5588, 5632, 71, "Micro - 1/2", "4+7", "Anger", 3, ""),
    ("6", "006_2_4", 2, 180, 217, 274, 95, "Micro - 1/2", 4, "Anger", 3, "While blinking"),
    ("028", "028_4_1", 4, 1071, 1143, 1134, 64, "Micro - 1/2", "A14C", "Contempt", 7, "Blinks"),
    ("032", "032_3_1", 3, 4896, 1930, 4970, 75, "Micro - 1/2", "4A", "Anger", 3, ""),
    ("032", "032_3_2", 3, 5126, 5127, 5207, 82, "Micro - 1/2", "ref(7B)+43", "Other", 7, ""),
)
SAMM_TITLES = (("SAMM Dataset - Master FACS Codes",), (), ("Symbol Key:",), ('"/" = or',), ())
CASME2_HEADER = (
    "Subject",
    "Filename",
    None,
    "OnsetFrame",
    "ApexFrame",
    "OffsetFrame",
    None,
    "Action Units",
    "Estimated Emotion",
)
CASME2_ROWS = (
    ("01", "EP02_01f", None, 46, 59, 86, None, 12, "happiness"),
    ("04", "EP12_01f", None, 261, "/", 321, None, "4+7", "disgust"),
    ("05", "EP09_05f", None, 69, 69, 110, None, "?", "disgust"),
    ("26", "EP18_51", None, 21, 64, 81, None, "4+L10", "others"),
)


def write_csv(
    path: Path,
    rows: Iterable[Sequence[Any]],
    *,
    separator: str = ",",
    encoding: str = "utf-8",
    newline: str = "\n",
) -> Path:
    lines = [separator.join("" if cell is None else str(cell) for cell in row) for row in rows]
    path.write_bytes((newline.join(lines) + newline).encode(encoding))
    return path


def write_xlsx(path: Path, sheets: dict[str, Iterable[Sequence[Any]]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(list(row))
    book.save(path)
    return path


def samm_csv(path: Path, **options: str) -> Path:
    return write_csv(path, [SAMM_HEADER, *SAMM_ROWS], **({"separator": ";"} | options))


def casme2_xlsx(path: Path) -> Path:
    return write_xlsx(path, {"Sheet1": [CASME2_HEADER, *CASME2_ROWS], "Sheet2": []})


def touch_frames(folder: Path, names: Iterable[str]) -> None:
    """Make empty files: a reader that opened one would fail."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def notes_of(
    path: Path, reader: Callable[..., Catalog] = read_samm, **options: Any
) -> tuple[int, list[tuple[str, str]]]:
    """Read a table; return how many clips it has, and rule and place of each doubt."""
    with collect_notes() as notes:
        catalog = reader(None, path, **options)
    return len(catalog), [(note.rule, note.where) for note in notes]
