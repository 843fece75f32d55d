"""What a report says of each clip in one row, read from the records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from apexflow.errors import ApexflowError
from apexflow.storage.format import GONE, NO_NUMBER, ClipRecord
from apexflow.storage.labels import class_map, stored_clips
from apexflow.storage.opened import Key
from apexflow.storage.store import Store

DONE, FAILED, TODO = "done", "failed", "to do"

SPARK_POINTS = 32
"""The most points of a curve in a row; longer ones show the lowest, or highest, of each part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One clip of a report.

    Attributes
    ----------
    index : int
        Its row in the store.
    key : (data set, subject, name)
    person, class_name, flags : str
        Empty when unknown, or when there are none.
    status : "done", "failed" or "to do"
    reason : str
        Why it failed.
    gone : bool
        Whether the last run's catalog no longer had it.
    key_frames : dict of str to int
        The numbers of onset, apex (as it was used) and offset that are known.
    record : ClipRecord or None
    """

    index: int
    key: Key
    person: str
    class_name: str
    status: str
    flags: str
    reason: str
    gone: bool
    key_frames: Mapping[str, int]
    record: ClipRecord | None

    @property
    def name(self) -> str:
        return "/".join(self.key)

    @property
    def lowest_score(self) -> float | None:
        """The correlation of the frame that looks least like the template frame."""
        scores = [] if self.record is None else [s for s in self.record.score if np.isfinite(s)]
        return min(scores, default=None)

    @property
    def largest_shift(self) -> float | None:
        """How far the head goes from where the template frame has it, px of the frame."""
        shifts = () if self.record is None else self.record.shift
        lengths = [float(np.hypot(*shift)) for shift in shifts]
        return max((length for length in lengths if np.isfinite(length)), default=None)


def read_entries(store: Store) -> list[Entry]:
    """Return one entry a row of the store, in its order."""
    people, gone = store.people(), store.column("catalog").tolist()
    classes = _classes(store)
    numbers = {name: store.column(name).tolist() for name in ("onset", "apex", "offset")}
    return [
        Entry(
            index=index,
            key=key,
            person=people[index],
            class_name=classes.get(key, ""),
            status=TODO if record is None else DONE if record.done else FAILED,
            flags="" if record is None else record.flags,
            reason="" if record is None else record.message,
            gone=gone[index] == GONE,
            key_frames=_key_frames({name: numbers[name][index] for name in numbers}, record),
            record=record,
        )
        for index, (key, record) in enumerate(zip(store.keys(), store.iter_records(), strict=True))
    ]


def flagged_first(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries in the order in which they want to be looked at."""

    def rank(entry: Entry) -> tuple[int, int]:
        first = 0 if entry.flags else 1 if entry.status == FAILED else 2
        return first, entry.index

    return sorted(entries, key=rank)


def people_and_classes(
    entries: Sequence[Entry],
) -> tuple[list[str], list[tuple[str, list[int]]], list[int]]:
    """Return the classes, a row of counts a person, and the sums; of clips that are done."""
    done = [entry for entry in entries if entry.status == DONE and not entry.gone]
    counts = Counter((entry.person, entry.class_name or "no class") for entry in done)
    classes = sorted({name for _, name in counts}, key=lambda name: (name == "no class", name))
    people = sorted({person for person, _ in counts})
    rows = [(person, [counts[person, name] for name in classes]) for person in people]
    return classes, rows, [sum(row[i] for _, row in rows) for i in range(len(classes))]


def spark(values: Sequence[float], low: float, high: float, *, keep: str) -> str:
    """Return a curve as one digit or letter a point: "0" for ``low``, "z" for ``high``.

    Of a long curve each point is the "low"est or "high"est value of its part, whichever
    ``keep`` says: what is worth a look must not fall between two points.
    """
    if not len(values):
        return ""
    extreme = np.nanmin if keep == "low" else np.nanmax
    parts = np.array_split(np.nan_to_num(np.asarray(values, float)), min(len(values), SPARK_POINTS))
    span = (high - low) or 1.0
    steps = [round(35 * min(1.0, max(0.0, (float(extreme(p)) - low) / span))) for p in parts]
    return "".join(_DIGITS[step] for step in steps)


_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def _key_frames(annotated: dict[str, int], record: ClipRecord | None) -> dict[str, int]:
    if record is not None and record.apex_frame != NO_NUMBER:
        annotated["apex"] = record.apex_frame
    return {name: number for name, number in annotated.items() if number != NO_NUMBER}


def _classes(store: Store) -> dict[Key, str]:
    """Return the class that training would take from the store, of each clip that has one."""
    try:
        return class_map(stored_clips(store)).class_of
    except ApexflowError:  # nobody has one
        return {}
