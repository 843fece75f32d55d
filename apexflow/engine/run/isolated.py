"""One clip in a process of its own, so that its crash or its hanging costs nothing else.

Clips that were on a worker when it died run this way: one of them may be why. The process
reads its task from standard input and answers on standard output; a crash is its exit status.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading

from apexflow.engine.run.parent import end_with_parent
from apexflow.engine.run.task import Outcome, Task, fail_task, run_task
from apexflow.errors import ApexflowError
from apexflow.system import limit_memory

_READY = b"ready"
_SECONDS_TO_START = 60.0


def run_isolated(task: Task, *, clip_timeout: float, memory_limit: int) -> Outcome:
    """Process one clip in a new process, and commit its failure when that process dies.

    Parameters
    ----------
    task : Task
    clip_timeout : float
        Seconds until the process is killed; 0 waits for ever.
    memory_limit : int
        Bytes that the process may hold (Linux); 0 for no limit.
    """
    arguments = [str(os.getpid()), str(memory_limit)]
    command = [sys.executable, "-m", "apexflow.engine.run.isolated", *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        # One that is stopped before it is ready would be waited for without an end.
        starting = threading.Timer(clip_timeout + _SECONDS_TO_START, process.kill)
        starting.daemon = True
        if clip_timeout:
            starting.start()
        try:
            # Python's start is not the clip's time; a process that dies early sends nothing.
            process.stdout.read(len(_READY))
            starting.cancel()
            answer, _ = process.communicate(pickle.dumps(task), timeout=clip_timeout or None)
        except subprocess.TimeoutExpired:
            reason = f"not finished after {clip_timeout:g} s, and ended (--clip-timeout)"
            return fail_task(task, reason)
        finally:
            starting.cancel()
            process.kill()
    if process.returncode != 0:
        return fail_task(
            task, f"its process died each time, isolated too, {_cause(process.returncode)}"
        )
    outcome = pickle.loads(answer)
    if isinstance(outcome, ApexflowError):
        raise outcome
    assert isinstance(outcome, Outcome)
    return outcome


def _cause(status: int) -> str:
    if status >= 0:
        return f"with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"of {name}" + (" (out of memory, or killed)" if name == "SIGKILL" else "")


def main() -> None:
    """Do the task on standard input."""
    end_with_parent(int(sys.argv[1]))
    limit_memory(int(sys.argv[2]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not mix with the answer
    answers.write(_READY)
    answers.flush()
    task = pickle.loads(sys.stdin.buffer.read())
    try:
        answer: Outcome | ApexflowError = run_task(task)
    except ApexflowError as error:
        answer = error
    answers.write(pickle.dumps(answer))
    answers.close()


if __name__ == "__main__":
    main()
