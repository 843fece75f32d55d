"""What a reader was in doubt of and went on: an audit collects it, so that no doubt is silent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Note:
    """One doubt of a reader.

    Attributes
    ----------
    severity : {"warning", "note"}
    rule : str
        As in a `Finding` of an audit.
    where : str
        File and row.
    message, proposal : str
    """

    severity: Literal["warning", "note"]
    rule: str
    where: str
    message: str
    proposal: str = ""


_collected: ContextVar[list[Note] | None] = ContextVar("notes", default=None)


@contextmanager
def collect_notes() -> Iterator[list[Note]]:
    """Collect the notes that readers take in this block."""
    notes: list[Note] = []
    token = _collected.set(notes)
    try:
        yield notes
    finally:
        _collected.reset(token)


def take_note(note: Note) -> None:
    """Keep a note, once, where somebody collects them."""
    notes = _collected.get()
    if notes is not None and note not in notes:
        notes.append(note)
