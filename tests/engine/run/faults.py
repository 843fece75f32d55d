"""Faults for tests: worker processes that crash, hang or eat memory at a chosen file."""

from __future__ import annotations

import subprocess
import time
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


def wait_for_a_record(path: Path, running: subprocess.Popen[str] | None = None) -> None:
    """Wait until a store holds a first commit record, or the run has ended without one.

    Raises `TimeoutError` after two minutes: no thread of a test outlives a run that has failed.
    """
    deadline = time.monotonic() + 120
    while not any(path.glob("clips/record/c.*")):
        if running is not None and running.poll() is not None:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path} has no commit record")
        time.sleep(0.005)
