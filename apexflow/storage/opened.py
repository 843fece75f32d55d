"""An opened store: its group, its arrays, and the columns of its table.

An array that was rewritten meanwhile is opened again; a column is checked against its digest.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from apexflow.catalog import person_of
from apexflow.errors import ApexflowError, DamagedError, NotStoredError
from apexflow.storage.digests import column_digest, first_line
from apexflow.storage.format import (
    ADDED_COLUMNS,
    GONE,
    NO_NUMBER,
    RESULT_NUMBER_COLUMNS,
    Layout,
)

Key = tuple[str, str, str]
"""Data set, subject and name of a clip."""


_MADE_BY = {"features": "apexflow features", "imported": "apexflow import-maps"}
"""The command that made a store which `apexflow process` did not, by a key of its recipe."""


class OpenedStore:
    """The group of a store, held until it is closed; see `Store`."""

    _checks = True
    """Whether records are checked against the table: a writer may find it half-written."""

    def __init__(self, group: zarr.Group, name: str, *, handle: int | None = None) -> None:
        self.group = group
        self.name = name
        self._handle = handle
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._layout: Layout | None = None
        self._generation: Any = None

    def close(self) -> None:
        """Let go of the store: a compaction may then delete the chunks that it replaced."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self.group.attrs)

    @property
    def layout(self) -> Layout:
        if self._layout is None:
            try:
                self._layout = Layout.from_dict(self.attributes["layout"])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise self._damaged(
                    "the layout in the store's attributes", first_line(error)
                ) from None
        return self._layout

    @property
    def recipe_hash(self) -> str:
        return str(self.attributes["recipe_hash"])

    @property
    def clip_count(self) -> int:
        """Number of clips in the table: rows beyond it were never committed."""
        count = self._attrs_now("clips").get("count")
        if not isinstance(count, int) or count < 0:
            raise self._damaged("clips/zarr.json", f"count is {count!r}")
        return count

    @property
    def complete(self) -> bool:
        """Whether the last run reached its end, so that the columns hold every result."""
        return bool(self._attrs_now("clips").get("complete"))

    @property
    def repaired_by(self) -> str:
        """What makes damaged parts again, for messages: `--repair` is of `process` alone."""
        recipe = self.attributes.get("recipe")
        keys = recipe if isinstance(recipe, dict) else {}
        command = next((command for key, command in _MADE_BY.items() if key in keys), None)
        if command is None:
            return "the process command with --repair makes it again"
        return f"delete the store and give the `{command}` command again"

    def array(self, path: str) -> zarr.Array[Any]:
        """Return an array of the store by its path, such as ``maps/hsv``.

        It is Zarr's own, unchecked: a chunk that is missing reads as the fill value (black, NaN,
        an empty text), without a word. What is checked: `read` and `frames` for a clip's part,
        `column` for a column of the table, `record` for a commit record.
        """
        if path not in self._arrays:
            try:
                found = self.group.get(path)
            except Exception as error:  # whatever damaged metadata makes Zarr raise
                raise self._damaged(f"the metadata of {path}", first_line(error)) from None
            if not isinstance(found, zarr.Array):
                raise ApexflowError(f"{self.name}: no array {path} in this store")
            self._arrays[path] = found
        return self._arrays[path]

    def refresh(self) -> None:
        """Open the arrays again: their chunks may have been rewritten."""
        self._arrays.clear()

    def column(self, name: str) -> NDArray[Any]:
        """Return one column of the table, a row a clip.

        Raises `DamagedError` when it cannot be read or is not what was written.
        """
        reason = ""
        for _ in range(2):
            attributes = self._attrs_now("clips")
            wanted = attributes.get("column_digests", {}).get(name)
            try:
                values = self.raw_column(name)
            except (DamagedError, NotStoredError):
                raise
            except Exception as error:  # whatever a damaged chunk makes Zarr raise
                reason = first_line(error)
            else:
                if wanted is None or column_digest(values) == wanted:
                    return values
                reason = "it is not what was written"
            self.refresh()
        raise self._damaged(f"column clips/{name}", reason)

    def raw_column(self, name: str) -> NDArray[Any]:
        """Return one column of the table as it is, unchecked."""
        count = self.clip_count
        if name in ADDED_COLUMNS and not self.has_column(name):
            return self._made_up(name, count)
        return np.asarray(self.array(f"clips/{name}")[:count])

    def has_column(self, name: str) -> bool:
        """Whether the store has a column, or had one when it was last written."""
        digests = self._attrs_now("clips").get("column_digests", {})
        return self.has_array(f"clips/{name}") or name in digests

    def has_array(self, path: str) -> bool:
        """Whether the store has an array, be it a damaged one."""
        try:
            return path in self.group
        except Exception:  # whatever damaged metadata makes Zarr raise
            return True

    def _made_up(self, name: str, count: int) -> NDArray[Any]:
        """Return a column that stores of earlier versions lack."""
        if name in RESULT_NUMBER_COLUMNS:
            return np.full(count, NO_NUMBER)
        people = (person_of(dataset, subject) for dataset, subject, _ in self.keys())
        texts = list(people) if name == "person" else [""] * count
        return np.asarray(texts, np.dtypes.StringDType())

    def keys(self) -> list[Key]:
        """Return (data set, subject, clip) of each row."""
        columns = (self.column(name).tolist() for name in ("dataset", "subject", "clip"))
        return list(zip(*columns, strict=True))

    def people(self) -> list[str]:
        """Return the person of each row: the same in several data sets where that is known."""
        stored = self.column("person").tolist()
        return [
            person or person_of(dataset, subject)
            for person, (dataset, subject, _) in zip(stored, self.keys(), strict=True)
        ]

    def gone(self) -> list[bool]:
        """Say of each row whether the last run's catalog no longer had its clip.

        Such clips take no part in data sets and folds; `apexflow process` drops them with
        ``--prune`` and keeps them with ``--keep``.
        """
        return [standing == GONE for standing in self.column("catalog").tolist()]

    def shared(self) -> dict[int, int]:
        """Return the rows that have the frames of another person's clip, with that one's row.

        As the last run found before it decoded anything, of clips that take part. Equal frames
        in different folders show in `ClipRecord.identity` as well.
        """
        names, people, gone = self.column("shared").tolist(), self.people(), self.gone()
        rows = {"/".join(key): row for row, key in enumerate(self.keys())} if any(names) else {}
        found = {row: rows[name] for row, name in enumerate(names) if name in rows}
        return {
            row: other
            for row, other in found.items()
            if people[row] != people[other] and not (gone[row] or gone[other])
        }

    def _rewritten(self) -> bool:
        """Say whether arrays have been rewritten since they were opened; open them again."""
        before = self._generation
        self._attrs_now("clips")
        return before != self._generation

    def _attrs_now(self, path: str) -> dict[str, Any]:
        try:
            found = dict(zarr.open_group(self.group.store, path=path, mode="r").attrs)
        except Exception as error:  # whatever damaged metadata makes Zarr raise
            raise self._damaged(f"the metadata of {path}", first_line(error)) from None
        generation = found.get("generation", 0)
        if generation != self._generation:
            if self._generation is not None:
                self.refresh()
            self._generation = generation
        return found

    def _damaged(self, what: str, reason: str) -> DamagedError:
        return DamagedError(
            f"{self.name}: {what} is damaged or being rewritten ({reason}); `apexflow verify` "
            f"names what is damaged, {self.repaired_by}"
        )
