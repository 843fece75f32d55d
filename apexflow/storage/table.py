"""The clips of a store as a table that a notebook shows."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from apexflow.errors import ApexflowError
from apexflow.storage.format import NO_NUMBER

if TYPE_CHECKING:
    from apexflow.storage.store import Store

COLUMNS = (
    *("dataset", "subject", "clip", "person", "status", "flags", "message", "emotion", "label"),
    *("action_units", "onset", "apex", "offset", "apex_frame", "apex_source", "frame_count"),
)
_SHOWN_COLUMNS = ("dataset", "subject", "clip", "status", "flags", "emotion", "message")
_SHOWN_ROWS = 20


@dataclass(frozen=True, slots=True, repr=False)
class ClipTable(Sequence[Mapping[str, Any]]):
    """The table of a store's clips, one mapping of column to value a row.

    A number that is not known is None. ``table[3]`` is one row, ``table["emotion"]`` a column.

    Attributes
    ----------
    columns : dict of name to list
        One value a clip, in the order of the store.
    """

    columns: Mapping[str, list[Any]]

    def __len__(self) -> int:
        return len(self.columns["clip"])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            if index not in self.columns:
                raise ApexflowError(f"no column {index}; there are {', '.join(self.columns)}")
            return self.columns[index]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return {name: values[index] for name, values in self.columns.items()}

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        shown = [[str(self.columns[n][i]) for n in _SHOWN_COLUMNS] for i in range(self._shown)]
        rows = [list(_SHOWN_COLUMNS), *shown]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_SHOWN_COLUMNS))]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([*lines, *self._more()])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in _SHOWN_COLUMNS)
        rows = "".join(
            "<tr>"
            + "".join(f"<td>{_text(self.columns[n][i])}</td>" for n in _SHOWN_COLUMNS)
            + "</tr>"
            for i in range(self._shown)
        )
        more = "".join(f"<p>{line}</p>" for line in self._more())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{more}"

    @property
    def _shown(self) -> int:
        return min(len(self), _SHOWN_ROWS)

    def _more(self) -> list[str]:
        left = len(self) - self._shown
        return [f"… {left} more"] if left else []

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` of all columns; numbers that are not known are <NA>.

        Raises `ApexflowError` where pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ApexflowError(
                "to_pandas needs pandas: pip install 'apexflow[notebook]'"
            ) from None
        frame = pandas.DataFrame(dict(self.columns))
        numbers = [name for name in self.columns if name in _NUMBERS]
        return frame.astype(dict.fromkeys(numbers, "Int64"))


_NUMBERS = ("label", "onset", "apex", "offset", "apex_frame", "frame_count")


def read_table(store: Store) -> ClipTable:
    """Read the table of a store. Raises `DamagedError` as `Store.column` does."""
    return ClipTable({name: _column(store, name) for name in COLUMNS})


def _column(store: Store, name: str) -> list[Any]:
    values = store.column(name)
    if name not in _NUMBERS or name == "frame_count":
        return list(np.asarray(values).tolist())
    return [None if value == NO_NUMBER else value for value in values.tolist()]


def _text(value: object) -> str:
    return "" if value is None else html.escape(str(value))
