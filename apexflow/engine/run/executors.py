"""Where tasks run: in this process, on local Dask workers, on a Dask cluster elsewhere.

Each executor is a context that yields a function from tasks to outcomes, in whatever order
they finish. The store does not depend on which one ran.
"""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from apexflow.engine.run import gpus as gpu_places
from apexflow.engine.run.gpus import RESOURCE, VISIBLE, GpuOptions, check_gpus, deal_gpus
from apexflow.engine.run.task import (
    Outcome,
    Task,
    opencv_threads_restored,
    run_task,
    worker_versions,
)
from apexflow.errors import ApexflowError
from apexflow.system import keep_freed_memory

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

RunTasks = Callable[[Iterable[Task]], Iterator[Outcome]]

# A process for each clip at a time: two threads of one process took 2.8 times the decode floor of
# two cores, two processes 1.5 times (Python's lock). Each holds its own compiled kernels and
# detector, some 400 MB, and the frames that it works on: beyond what memory allows, processes
# get several threads.
BYTES_A_PROCESS = 1 << 30
CONNECT_SECONDS = 30
SECONDS_TO_RESTART = 10
# Long clips with flow between all frames take minutes; a clip that takes this long hangs.
CLIP_TIMEOUT = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How tasks run.

    Attributes
    ----------
    clip_timeout : float
        Seconds until a clip that has not finished is ended; 0 waits for ever. Without Dask
        there is nobody to end it.
    dashboard : bool
        Serve Dask's dashboard on this machine, and say where.
    performance_report : path, optional
        Write Dask's performance report to this HTML file.
    dask_level : int
        The least level of Dask's own log messages that are shown.
    gpu_decode : bool
        Let GPUs decode JPEG files, whose pixels are then not quite the CPU's.
    """

    clip_timeout: float = CLIP_TIMEOUT
    dashboard: bool = False
    performance_report: str | Path | None = None
    dask_level: int = logging.CRITICAL
    gpu_decode: bool = False

    def __post_init__(self) -> None:
        if not self.clip_timeout >= 0:
            raise ApexflowError(f"clip_timeout must be 0 or more seconds, not {self.clip_timeout}")
        if (self.dashboard or self.performance_report) and find_spec("bokeh") is None:
            raise ApexflowError(
                "Dask's dashboard and performance report need bokeh: pip install 'apexflow[report]'"
            )


@contextmanager
def serial() -> Iterator[RunTasks]:
    """Run tasks one after the other in this process."""
    keep_freed_memory()
    with opencv_threads_restored():
        yield lambda tasks: (run_task(task) for task in tasks)


@contextmanager
def local_workers(
    count: int,
    options: RunOptions,
    *,
    modules: Sequence[str],
    gpus: Sequence[str] = (),
    compile_first: bool = False,
) -> Iterator[RunTasks]:
    """Run tasks on ``count`` threads in worker processes of this machine.

    ``modules`` are those that the tasks will need and that take long to import. ``gpus`` are
    dealt out over the processes. With ``compile_first`` the others wait until a clip is done:
    what it has compiled they find in Numba's cache.
    """
    import dask
    from distributed import Client, Scheduler, SpecCluster
    from distributed.system import MEMORY_LIMIT

    from apexflow.engine.run.local import LocalWorker

    processes = max(1, min(count, MEMORY_LIMIT // BYTES_A_PROCESS))
    workers = {
        i: {
            "cls": LocalWorker,
            "options": {
                "nthreads": count // processes + (i < count % processes),
                "memory_limit": MEMORY_LIMIT // processes,
                "resources": {RESOURCE: gpu.share} if gpu else {},
                "environment": {VISIBLE: gpu.visible} if gpu else {},
            },
        }
        for i, gpu in enumerate(deal_gpus(gpus, processes))
    }
    scheduler = {
        "host": "127.0.0.1",
        "port": 0,
        "dashboard": options.dashboard,
        "dashboard_address": "127.0.0.1:0",
        # A clip that was on a dead worker comes back to us at once; see dispatch.
        "allowed_failures": 0,
    }
    with (
        _dask_logs(options),
        # Workers on this machine are seen to by ourselves; a clock that jumps must not end them.
        dask.config.set({"distributed.scheduler.worker-ttl": None}),
        SpecCluster(
            workers=workers,
            scheduler={"cls": Scheduler, "options": scheduler},
        ) as cluster,
        Client(cluster) as client,
    ):

        def replace_lost_workers() -> None:
            lost = [name for name, worker in cluster.workers.items() if worker.lost]
            for name in lost:
                del cluster.workers[name]
            if lost:
                cluster.scale(len(workers))

        def end_worker(address: str) -> str:
            found = cluster.scheduler.workers.get(address)
            if found is not None and found.name in cluster.workers:
                cluster.workers[found.name].end()
            return "it is ended, and another one started"

        yield _dispatching(
            client,
            options,
            modules=modules,
            use_gpus=bool(gpus),
            replace_lost_workers=replace_lost_workers,
            end_worker=end_worker,
            compile_first=compile_first,
        )


@contextmanager
def dask_scheduler(
    address: str, options: RunOptions, *, modules: Sequence[str], gpus: str | int = 0
) -> Iterator[RunTasks]:
    """Run tasks on the workers of a Dask scheduler: ``tcp://host:8786`` or a scheduler file.

    Workers started with ``--resources GPU=1`` have a GPU. Raises `ApexflowError` when the
    scheduler does not answer within 30 s, has no workers, fewer with a GPU than the number
    ``gpus``, or one with another version of apexflow.
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
        wanted, there = check_gpus(gpus), _workers_with_gpus(client)
        if wanted is not None and there < wanted:
            raise ApexflowError(
                f"gpus is {wanted}, and of the workers at {address} {there} have a GPU; start one "
                f"with `dask worker {address} --nthreads 1 --resources {RESOURCE}=1`"
            )
        yield _dispatching(
            client,
            options,
            modules=modules,
            use_gpus=wanted != 0,
            end_worker=partial(_end_elsewhere, client),
        )


def _end_elsewhere(client: Client, address: str) -> str:
    """Have a worker of somebody else's scheduler ended; say what has become of it.

    Its nanny kills and restarts it. Where there is none, or it hears nothing either, the scheduler
    lets go of the worker, and its clips go to others; when it wakes up it ends itself.
    """
    answer: dict[str, str] = client.sync(
        client.scheduler.restart_workers,
        workers=[address],
        timeout=SECONDS_TO_RESTART,
        wait_for_workers=False,
        on_error="return",
        stimulus_id=f"apexflow-silent-{address}",
    )
    if answer.get(address) == "OK":
        return "its nanny has ended it, and starts another one"
    return "its clips go to other workers; nobody can end its process from here, do that yourself"


def _workers_with_gpus(client: Client) -> int:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return sum(bool(worker["resources"].get(RESOURCE)) for worker in workers.values())


def _dispatching(
    client: Client,
    options: RunOptions,
    *,
    modules: Sequence[str],
    use_gpus: bool,
    end_worker: Callable[[str], str],
    replace_lost_workers: Callable[[], None] = lambda: None,
    compile_first: bool = False,
) -> RunTasks:
    """Return the function that runs tasks, with what the user wants to see of it."""
    from apexflow.engine.run.dispatch import Dispatch
    from apexflow.engine.run.worker import WorkerSetup

    gpu = GpuOptions(gpu_decode=options.gpu_decode, backend=gpu_places.CUDA) if use_gpus else None
    name = f"apexflow-{uuid.uuid4().hex}"
    setup = WorkerSetup(name, versions=worker_versions(), modules=modules, gpu=gpu)

    def run(tasks: Iterable[Task]) -> Iterator[Outcome]:
        if options.dashboard:
            logger.warning("Dask's dashboard: %s", client.dashboard_link)
        client.register_plugin(setup)
        try:
            with _performance_report(options.performance_report):
                dispatch = Dispatch(
                    client,
                    name,
                    options.clip_timeout,
                    replace_lost_workers,
                    compile_first=compile_first,
                    end_worker=end_worker,
                )
                yield from dispatch.run(tasks)
        finally:
            with suppress(Exception):  # a scheduler that is gone has told so already
                client.unregister_worker_plugin(name)

    return run


def _performance_report(file: str | Path | None) -> AbstractContextManager[Any]:
    if file is None:
        return nullcontext()
    from distributed import performance_report

    return cast("AbstractContextManager[Any]", performance_report(filename=str(file)))


def _check_versions(client: Client) -> None:
    ours = worker_versions()
    names = {a: w["name"] for a, w in client.scheduler_info(n_workers=-1)["workers"].items()}
    for worker, theirs in client.run(worker_versions, on_error="return").items():
        if theirs != ours:
            raise ApexflowError(
                f"worker {names.get(worker, '')} at {worker} has {theirs}, this process {ours}: "
                f"install one version"
            )


@contextmanager
def _dask_logs(options: RunOptions) -> Iterator[None]:
    """Let Dask log what the user asked for: failures are reported by clip.

    Here until its threads have ended: a cluster that silences itself stops as it is closed, and
    the connections that break then were heard.
    """
    from distributed.utils import silence_logging_cmgr

    name = "DASK_LOGGING__DISTRIBUTED"
    before = os.environ.get(name)
    os.environ[name] = logging.getLevelName(options.dask_level).lower()
    try:
        with (
            silence_logging_cmgr(options.dask_level),
            silence_logging_cmgr(options.dask_level, root="bokeh"),
        ):
            yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
