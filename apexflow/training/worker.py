"""A process of its own that trains folds: what `apexflow.training.parallel` starts."""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
import time
import traceback
from typing import IO, Any

_BETWEEN = 0.2  # seconds from one report of epochs to the next


def main() -> None:
    """Train the folds that standard input names, until it ends."""
    # What anything prints goes to standard error: standard output is for answers alone.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    orders: queue.Queue[int] = queue.Queue()
    try:
        tasks, dataset, machine = pickle.load(sys.stdin.buffer)
        threading.Thread(target=_listen, args=(orders,), daemon=True).start()
        while True:
            _train(orders.get(), tasks, dataset, machine, answers)
    except EOFError:  # the run was killed before it had said what to do
        return
    except Exception as error:
        _answer(answers, "error", _as_told(error))


def _listen(orders: queue.Queue[int]) -> None:
    """Hear orders; at the end of the input, which is the run's end, end at once."""
    try:
        while True:
            orders.put(pickle.load(sys.stdin.buffer))
    except (EOFError, OSError, pickle.UnpicklingError):
        os._exit(0)


def _train(number: int, tasks: Any, dataset: Any, machine: Any, answers: IO[bytes]) -> None:
    from apexflow.training.task import train_task

    last = 0.0

    def on_epoch(epoch: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _BETWEEN:
            last = now
            _answer(answers, "epoch", number, epoch)

    _answer(answers, "begin", number)
    train_task(tasks[number], dataset, machine, on_epoch)
    _answer(answers, "end", number)


def _as_told(error: Exception) -> Exception:
    """Return an error as it can be sent: those of foreign classes as their text."""
    from apexflow.errors import ApexflowError

    if isinstance(error, ApexflowError | OSError):
        return error
    traceback.print_exc()
    return RuntimeError(f"{type(error).__name__}: {error}")


def _answer(stream: IO[bytes], *message: Any) -> None:
    pickle.dump(message, stream)
    stream.flush()
