"""The commit records of a store, as they are read: one a clip, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from apexflow.errors import ApexflowError, DamagedError
from apexflow.storage.digests import first_line
from apexflow.storage.format import ClipRecord
from apexflow.storage.opened import OpenedStore

RECORD_BLOCK = 1024  # rows; of clips of 75 frames some 10 MB parsed


class RecordedStore(OpenedStore):
    """A store whose clips have commit records; see `Store`."""

    def record(self, index: int) -> ClipRecord | None:
        """Return the commit record of a row; None when the clip was never finished.

        Raises `DamagedError` when it is damaged.
        """
        (found,) = self._read_records(index, index + 1)
        return found

    def records(self) -> list[ClipRecord | None]:
        """Return the commit record of every row."""
        return list(self.iter_records())

    def iter_records(self, *, matching: bool = True) -> Iterator[ClipRecord | None]:
        """Yield the commit record of every row, a block of rows in memory at a time.

        Each must be of its row's clip, unless ``matching`` is false.

        Raises `DamagedError` when one is damaged, or another clip's.
        """
        matching = matching and self._checks
        keys = self.keys() if matching else []
        count = self.clip_count
        for start in range(0, count, RECORD_BLOCK):
            records = self._read_records(start, min(start + RECORD_BLOCK, count))
            for row, record in enumerate(records, start):
                if matching and record is not None and record.key != keys[row]:
                    raise DamagedError(
                        f"{self.name}: row {row} is {'/'.join(keys[row])}, its commit record is "
                        f"of {'/'.join(map(str, record.key))}; {self.repaired_by}"
                    )
                yield record

    def finished(self) -> Iterator[tuple[int, ClipRecord]]:
        """Yield (row, record) of each clip that is done; raises as `iter_records` does."""
        for index, record in enumerate(self.iter_records()):
            if record is not None and record.done:
                yield index, record

    def sound_records(self, damaged: set[int] | None = None) -> Iterator[ClipRecord | None]:
        """Yield the commit record of every row, None in the place of one that is damaged.

        The rows of these are added to ``damaged``.
        """
        count = self.clip_count
        for start in range(0, count, RECORD_BLOCK):
            stop = min(start + RECORD_BLOCK, count)
            try:
                yield from self._read_records(start, stop)
            except DamagedError:
                for index in range(start, stop):
                    yield self._sound_record(index, set() if damaged is None else damaged)

    def _sound_record(self, index: int, damaged: set[int]) -> ClipRecord | None:
        try:
            return self.record(index)
        except DamagedError:
            damaged.add(index)
            return None

    def _read_records(self, start: int, stop: int) -> list[ClipRecord | None]:
        try:
            texts = self._record_texts(start, stop)
            if "" in texts and self._rewritten():
                texts = self._record_texts(start, stop)
            if "" in texts and self._checks and self.complete:
                self._check_unrecorded(texts, start)
            return [ClipRecord.from_json(text) if text else None for text in texts]
        except ApexflowError:
            raise
        except Exception as error:  # whatever a damaged chunk makes Zarr or the parser raise
            raise DamagedError(
                f"{self.name}: a commit record is damaged ({first_line(error)}); `apexflow verify` "
                f"says which, {self.repaired_by}"
            ) from None

    def _check_unrecorded(self, texts: list[str], start: int) -> None:
        """Refuse a lost record: where a run has reached its end, the table says who has one."""
        status = self.column("status")[start : start + len(texts)].tolist()
        for row, (text, found) in enumerate(zip(texts, status, strict=True), start):
            if found and not text:
                raise DamagedError(
                    f"{self.name}: the commit record of row {row} is missing, its clip was {found}"
                    f"; {self.repaired_by}"
                )

    def _record_texts(self, start: int, stop: int) -> list[str]:
        texts: list[str] = np.asarray(self.array("clips/record")[start:stop]).tolist()
        # A table that has grown since the array was opened.
        return texts + [""] * (stop - start - len(texts))
