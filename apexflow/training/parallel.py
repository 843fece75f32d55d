"""Folds side by side: worker processes that live as long as their run, and no longer.

A worker runs `apexflow.training.worker`. It is told what to do by pickles on its standard
input, and answers by pickles on its standard output; at the end of its input it ends, so that
none outlives its run. It does not import the user's script again, as a spawned process does.
"""

from __future__ import annotations

import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any, Protocol

import cloudpickle

from apexflow.errors import ApexflowError
from apexflow.storage.dataset import ClipDataset
from apexflow.training.machine import Machine
from apexflow.training.task import FoldTask

_GRACE = 5.0  # seconds
# Before anything of ours is imported, the process must know where this one found it.
_BEGIN = """\
import pickle, sys
try:
    sys.path[:] = pickle.load(sys.stdin.buffer)
except EOFError:  # the run was killed at once
    sys.exit()
from apexflow.training.worker import main
main()
"""


class Watcher(Protocol):
    """Who is told how far the folds are."""

    def begin(self, task: FoldTask) -> None: ...
    def epoch(self, task: FoldTask, number: int) -> None: ...
    def end(self, task: FoldTask) -> None: ...


def train_side_by_side(
    tasks: Sequence[FoldTask], dataset: ClipDataset, machine: Machine, jobs: int, watcher: Watcher
) -> None:
    """Train folds in ``jobs`` processes; each fold as it would be trained alone.

    Raises `ApexflowError` with what a worker could not do, or when one is killed.
    """
    # By value where only this process knows it: functions of a script or a notebook.
    payload = cloudpickle.dumps((tasks, dataset, machine))
    answers: queue.Queue[tuple[int, Any]] = queue.Queue()
    workers = [_Worker(i, payload, answers) for i in range(min(jobs, len(tasks)))]
    waiting = list(range(len(tasks)))[::-1]
    try:
        for worker in workers:
            worker.send(waiting.pop())
        busy = len(workers)
        while busy:
            number, (what, *rest) = answers.get()
            if what == "begin":
                watcher.begin(tasks[rest[0]])
            elif what == "epoch":
                watcher.epoch(tasks[rest[0]], rest[1])
            elif what == "end":
                watcher.end(tasks[rest[0]])
                if waiting:
                    workers[number].send(waiting.pop())
                else:
                    busy -= 1
            elif what == "error":
                raise rest[0]
            else:
                raise ApexflowError(
                    f"a training process ended ({workers[number].ending()}): run with fewer --jobs "
                    "if memory is short; the same command goes on from here"
                )
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process that trains one fold after another, and the thread that hears it."""

    def __init__(self, number: int, payload: bytes, answers: queue.Queue[tuple[int, Any]]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BEGIN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Ctrl-C is the run's to answer.
            start_new_session=True,
        )
        self._start: bytes | None = payload
        thread = threading.Thread(target=self._hear, args=(number, answers), daemon=True)
        self._thread = thread
        thread.start()

    def send(self, message: Any) -> None:
        with suppress(BrokenPipeError):  # that it is gone is heard
            if self._start is not None:
                _put(self._input, sys.path)
                self._input.write(self._start)
                self._start = None
            _put(self._input, message)

    def stop(self) -> None:
        """End the process: at once, for all that counts is on disk."""
        self._process.terminate()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()

    def ending(self) -> str:
        """Return how the process ended."""
        status = self._process.wait()
        return f"killed by signal {-status}" if status < 0 else f"exit status {status}"

    @property
    def _input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _hear(self, number: int, answers: queue.Queue[tuple[int, Any]]) -> None:
        assert self._process.stdout is not None
        while True:
            try:
                answers.put((number, pickle.load(self._process.stdout)))
            except (EOFError, pickle.UnpicklingError, OSError, ValueError):
                answers.put((number, ("gone",)))
                return


def _put(stream: IO[bytes], message: Any) -> None:
    pickle.dump(message, stream)
    stream.flush()
