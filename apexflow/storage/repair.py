"""Repairing a damaged store, as far as it can say by itself what belongs where.

Columns are made again from the commit records. What only the data set can give is taken back, so
that the next run does it again: the clips whose pixels are damaged, and the annotation of all.
"""

from __future__ import annotations

from collections.abc import Collection

from apexflow.storage.checks import Damage, verify
from apexflow.storage.compact import expand
from apexflow.storage.format import NO_NUMBER, NUMBER_COLUMNS, TEXT_COLUMNS
from apexflow.storage.writer import StoreWriter, delete_chunk, whole_chunks

_RECORDED = ("dataset", "subject", "clip", "frame_start")


def repair(store: StoreWriter) -> list[Damage]:
    """Take back what is damaged, for the one process that holds the store; return what was.

    A run over the same catalog completes the store: it does the clips again whose record is
    gone, and writes all columns.
    """
    found = verify(store)
    columns = [damage.where for damage in found if damage.is_column]
    if columns:
        _clear(store, columns)
        found += verify(store)
    for index in sorted({damage.index for damage in found if damage.index is not None}):
        store.forget_row(index)
    if found:
        expand(store, lost_as_blank=True)
        store.begin()
    return found


def _clear(store: StoreWriter, paths: Collection[str]) -> None:
    """Empty unreadable columns, and write again what the commit records know of them."""
    for path in paths:
        array = store.array(path)
        for number in range(-(-array.shape[0] // array.chunks[0])):
            delete_chunk(array, number)
    store.forget_digests([path.removeprefix("clips/") for path in paths])
    annotation = {f"clips/{name}" for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS)}
    if not annotation.intersection(paths):
        return
    columns = {name: store.column(name) for name in (*_RECORDED, "frame_capacity")}
    for index, record in enumerate(store.sound_records()):
        if record is None:  # its slot cannot be relied on: the run gives it another
            columns["frame_start"][index], columns["frame_capacity"][index] = 0, 0
            continue
        for name in _RECORDED:
            columns[name][index] = getattr(record, name)
        if columns["frame_capacity"][index] == NO_NUMBER:
            columns["frame_capacity"][index] = whole_chunks(len(record.frame_numbers))
    for name, values in columns.items():
        store.array(f"clips/{name}")[: len(values)] = values
