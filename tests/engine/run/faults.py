"""Faults for tests: worker processes that crash, hang or eat memory at a chosen file."""

from __future__ import annotations

from pathlib import Path

import pytest

# Every Python process imports this at its start: whoever reads a file of the chosen name does
# the harm. Nothing of apexflow is replaced, and the process dies as it would by itself.
_AT_START = """
import os, pathlib, time
_read = pathlib.Path.read_bytes

def read_bytes(self):
    if self.name == {name!r}:
        {harm}
    return _read(self)

pathlib.Path.read_bytes = read_bytes
"""

HARMS = {
    # A real one: a signal sent to the process leaves this thread milliseconds to finish the clip.
    "segfault": "import ctypes; ctypes.string_at(0)",
    "exit": "os._exit(3)",
    "hang": "time.sleep(1e6)",
    # A regular expression that backtracks for ever, and holds the interpreter's lock.
    "hang with the lock": "import re; re.match('(a+)+$', 'a' * 60 + 'b')",
    "memory": "hoard = [bytearray(1 << 24) for _ in range(1 << 20)]",
}


def do_harm(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, harm: str) -> None:
    """Make each new Python process do harm when it reads a file called ``name``."""
    folder.mkdir()
    text = _AT_START.format(name=name, harm=HARMS[harm])
    (folder / "sitecustomize.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
