"""Where tasks run: in this process, on local Dask workers, on a Dask cluster elsewhere.

Each executor is a context that yields a function from tasks to outcomes, in whatever order
they finish. The store does not depend on which one ran.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from apexflow.engine.task import (
    Outcome,
    Task,
    fail,
    opencv_threads_restored,
    run_task,
    worker_versions,
)
from apexflow.errors import ApexflowError
from apexflow.storage.store import open_store

if TYPE_CHECKING:
    from distributed import Client

RunTasks = Callable[[Iterable[Task]], Iterator[Outcome]]

# Few processes with several threads: the kernels and the decoders release the GIL, and each
# process holds its own copy of the compiled kernels and the detector.
THREADS_PER_PROCESS = 4
CONNECT_SECONDS = 30


@contextmanager
def serial() -> Iterator[RunTasks]:
    """Run tasks one after the other in this process."""
    with opencv_threads_restored():
        yield lambda tasks: (run_task(task) for task in tasks)


@contextmanager
def local_workers(count: int) -> Iterator[RunTasks]:
    """Run tasks on ``count`` threads in worker processes of this machine."""
    from distributed import Client, Scheduler, SpecCluster
    from distributed.deploy.subprocess import SubprocessWorker

    processes = -(-count // THREADS_PER_PROCESS)
    # Workers are started as commands, not forked or spawned from the caller's script, so that
    # a script needs no `if __name__ == "__main__"` and a notebook works like any other caller.
    workers = {
        i: {
            "cls": SubprocessWorker,
            "options": {
                "worker_class": "distributed.Nanny",
                "worker_kwargs": {
                    "nthreads": count // processes + (i < count % processes),
                    "silence_logs": logging.CRITICAL,
                    "dashboard": False,
                    "host": "127.0.0.1",
                },
            },
        }
        for i in range(processes)
    }
    options = {"host": "127.0.0.1", "port": 0, "dashboard": False}
    with (
        _quiet_dask(),
        SpecCluster(
            workers=workers,
            scheduler={"cls": Scheduler, "options": options},
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield lambda tasks: _submit(client, tasks)


@contextmanager
def dask_scheduler(address: str) -> Iterator[RunTasks]:
    """Run tasks on the workers of a Dask scheduler: ``tcp://host:8786`` or a scheduler file.

    Raises `ApexflowError` when it does not answer within 30 s, has no workers, or has one
    with another version of apexflow.
    """
    from distributed import Client

    where = {"scheduler_file": address} if address.endswith(".json") else {"address": address}
    try:
        client = Client(**where, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TimeoutError) as error:
        raise ApexflowError(
            f"no Dask scheduler answers at {address} within {CONNECT_SECONDS} s ({error}); "
            f"start one with `dask scheduler` and pass its address"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError:
            raise ApexflowError(
                f"the Dask scheduler at {address} has no workers; start one with "
                f"`dask worker {address}`"
            ) from None
        _check_versions(client)
        yield lambda tasks: _submit(client, tasks)


def _submit(client: Client, tasks: Iterable[Task]) -> Iterator[Outcome]:
    """Keep a bounded number of clips in flight, so that memory does not grow with the catalog."""
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    waiting = iter(tasks)
    in_flight: dict[Any, Task] = {}

    def submit(count: int) -> list[Any]:
        futures = []
        for task in islice(waiting, count):
            future = client.submit(run_task, task, pure=False)
            in_flight[future] = task
            futures.append(future)
        return futures

    completed = as_completed(submit(2 * sum(client.nthreads().values()) + 2))
    for future in completed:
        task = in_flight.pop(future)
        try:
            yield future.result()
        except KilledWorker:
            store = open_store(task.target, mode="r+")
            yield fail(store, task, "the worker died each time that it tried this clip")
        for following in submit(1):
            completed.add(following)


def _check_versions(client: Client) -> None:
    ours = worker_versions()
    for worker, theirs in client.run(worker_versions, on_error="return").items():
        if theirs != ours:
            raise ApexflowError(f"worker {worker} has {theirs}, this process {ours}: install one")


@contextmanager
def _quiet_dask() -> Iterator[None]:
    """Let the workers' logs pass only what is critical: failures are reported by clip."""
    name = "DASK_LOGGING__DISTRIBUTED"
    before = os.environ.get(name)
    os.environ[name] = "critical"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
