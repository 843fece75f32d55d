"""What libjpeg says on standard error while a picture is decoded.

OpenCV decodes a damaged JPEG and keeps what libjpeg warned of to itself: the only trace is a line
on standard error. Looking through the coded data of each file takes as long as decoding it;
looking whether a line was written takes microseconds, and tells which files need that look.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_STDERR = 2
_OF_LIBJPEG = b"JPEG"


@dataclass(slots=True)
class _Diverted:
    """Standard error led into a file while anybody decodes, and given back what is not libjpeg's.

    It is the process's: a line that another thread has caused looks like one's own.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    file: int | None = None
    stderr: int = -1

    def enter(self) -> int:
        """Return how much the file holds."""
        with self.lock:
            if self.file is None:
                handle, name = tempfile.mkstemp(prefix="apexflow-decoder-")
                Path(name).unlink()
                self.file = handle
            if self.users == 0:
                self.stderr = os.dup(_STDERR)
                os.dup2(self.file, _STDERR)
            self.users += 1
            return os.fstat(self.file).st_size

    def leave(self, before: int) -> bool:
        """Return whether anything was written since."""
        with self.lock:
            assert self.file is not None
            written = os.fstat(self.file).st_size
            self.users -= 1
            if self.users == 0:
                os.dup2(self.stderr, _STDERR)
                os.close(self.stderr)
                if written:
                    self._give_back(self.file, written)
            return written > before

    def _give_back(self, file: int, count: int) -> None:
        os.lseek(file, 0, os.SEEK_SET)
        lines = os.read(file, count).splitlines(keepends=True)
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        if others := b"".join(line for line in lines if _OF_LIBJPEG not in line):
            os.write(_STDERR, others)


_diverted = _Diverted()


@contextmanager
def decoder_warned() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells, afterwards, whether a decoder may have warned meanwhile.

    True as well where standard error cannot be watched.
    """
    warned = True
    try:
        before = _diverted.enter()
    except OSError:  # no standard error, no room for a file
        yield lambda: True
        return
    try:
        yield lambda: warned
    finally:
        warned = _diverted.leave(before)
