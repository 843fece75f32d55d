"""What people say of clips that they have looked at, in a file that leaves clips out.

A report exports it; `apexflow process --exclude`, `ClipDataset(exclude=…)` and
`Catalog.select` take it. It is a CSV with the columns dataset, subject, clip, mark, note.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from apexflow.errors import ApexflowError

GOOD, BAD, NOTED = "good", "bad", ""
"""What a clip may be marked as; clips marked bad are left out."""

COLUMNS = ("dataset", "subject", "clip", "mark", "note")
Key = tuple[str, str, str]
Exclusions = str | Path | Iterable[Key] | None
"""A file of marks, or the keys (data set, subject, name) of clips to leave out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One clip's mark.

    Attributes
    ----------
    dataset, subject, clip : str
        The clip's key.
    mark : {"good", "bad", ""}
    note : str
    """

    dataset: str
    subject: str
    clip: str
    mark: str
    note: str = ""

    @property
    def key(self) -> Key:
        """(data set, subject, name)."""
        return self.dataset, self.subject, self.clip


def read_marks(path: str | Path) -> tuple[Mark, ...]:
    """Read a file of marks.

    Raises
    ------
    ApexflowError
        It cannot be read, lacks a column, has another mark, or a clip twice.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="", strict=True)
            header, rows = reader.fieldnames or (), list(reader)
    except (OSError, UnicodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ApexflowError(f"{path}: cannot be read as a file of marks ({reason})") from None
    missing = [name for name in COLUMNS[:4] if name not in header]
    if missing:
        raise ApexflowError(
            f"{path}: no column {', '.join(missing)}; a file of marks has {', '.join(COLUMNS)}"
        )
    marks: dict[Key, Mark] = {}
    for line, row in enumerate(rows, start=2):
        mark = Mark(**{name: (row.get(name) or "").strip() for name in COLUMNS})
        if mark.mark not in (GOOD, BAD, NOTED):
            raise ApexflowError(f"{path} row {line}: mark must be good, bad or empty: {mark.mark}")
        if mark.key in marks:
            raise ApexflowError(f"{path} row {line}: {'/'.join(mark.key)} stands twice; keep one")
        marks[mark.key] = mark
    return tuple(marks.values())


def excluded(source: Exclusions, known: Iterable[Key]) -> frozenset[Key]:
    """Return the keys of the clips to leave out: those that a file of marks calls bad.

    Clips of data sets that ``known`` has none of are passed over, so that one file can serve
    several.

    Raises `ApexflowError` when one of a known data set is not there: a name is misspelt, or the
    file is of other data.
    """
    if source is None:
        return frozenset()
    if isinstance(source, str | Path):
        wanted = [mark.key for mark in read_marks(source) if mark.mark == BAD]
        where = str(source)
    else:
        wanted, where = list(source), "exclude"
    there = set(known)
    datasets = {dataset for dataset, _, _ in there}
    for key in wanted:
        if key[0] in datasets and key not in there:
            raise ApexflowError(f"{where}: no clip {'/'.join(key)} to leave out; check its name")
    return frozenset(wanted) & there
