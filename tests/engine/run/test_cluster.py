"""A scheduler and workers started as commands of their own, as on several machines."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from distributed import Client

from apexflow import process
from apexflow.catalog import Catalog
from apexflow.engine.recipe import Recipe
from apexflow.engine.run import gpus
from apexflow.engine.run.dispatch import MOST_CLIPS_A_BATCH
from apexflow.engine.run.executors import RunOptions, dask_scheduler
from apexflow.engine.run.gpus import RESOURCE
from apexflow.engine.run.task import Task
from apexflow.errors import ApexflowError
from apexflow.storage.checks import verify
from apexflow.storage.store import open_store
from tests.engine.run.fake_gpus import CHOSEN, TROUBLE
from tests.engine.run.faults import do_harm, wait_for_a_record
from tests.stores import assert_same_arrays, many_tasks

ROOT = Path(__file__).parents[3]
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def scheduler_file(tmp_path: Path) -> Path:
    return tmp_path / "scheduler.json"


@pytest.fixture
def start(tmp_path: Path, scheduler_file: Path) -> Iterator[Start]:
    """Start ``dask scheduler`` or ``dask worker``, with the scheduler's file."""
    running = []

    def command(kind: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "dask", kind, "--scheduler-file", str(scheduler_file)]
        common = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
        running.append(
            subprocess.Popen(
                [*line, "--no-dashboard", *options],
                env=os.environ | environment,
                start_new_session=True,
                **common,
            )
        )
        return running[-1]

    yield command
    for started in running:
        kill(started)


def kill(started: subprocess.Popen[bytes]) -> None:
    """Kill a command and the processes that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(started.pid, 9)
    started.wait(timeout=30)


def test_a_worker_is_killed_and_another_joins_in_mid_run(
    tmp_path: Path,
    reference: Path,
    catalog: Catalog,
    small_recipe: Recipe,
    scheduler_file: Path,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "s.zarr"
    start("scheduler", "--port", "0")
    # The first worker hangs at a clip in the middle, so that it dies with work in its hands.
    stuck = min(catalog[4].path.iterdir()).name
    with monkeypatch.context() as patch:
        do_harm(patch, tmp_path / "site", stuck, "hang")
        first = start("worker", "--nthreads", "2", "--no-nanny")

    def change_workers() -> None:
        wait_for_a_record(path)
        start("worker", "--nthreads", "1")
        kill(first)

    changing = threading.Thread(target=change_workers)
    changing.start()
    summary = process(
        catalog, path, recipe=small_recipe, scheduler=str(scheduler_file), progress=False
    )
    changing.join()
    assert (summary.done, len(summary.failed)) == (5, 2)
    assert_same_arrays(reference, path)
    assert verify(open_store(path)) == []


OTHER_VERSION = "import apexflow\napexflow.__version__ = '0.0.9'\n"


def test_workers_of_another_version_are_refused_by_name(
    tmp_path: Path,
    catalog: Catalog,
    small_recipe: Recipe,
    scheduler_file: Path,
    start: Start,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(OTHER_VERSION)
    start("scheduler", "--port", "0")
    options = {"recipe": small_recipe, "scheduler": str(scheduler_file), "progress": False}
    old = start("worker", "--nthreads", "1", "--name", "old-machine", PYTHONPATH=str(site))
    with pytest.raises(ApexflowError, match=r"old-machine.*0\.0\.9"):
        process(catalog, tmp_path / "s.zarr", **options)
    assert not (tmp_path / "s.zarr").exists()
    kill(old)

    # One that joins after the run has begun costs the run nothing.
    start("worker", "--nthreads", "1", "--no-nanny")
    tasks = many_tasks(tmp_path / "late.zarr", catalog, small_recipe, 60)
    with dask_scheduler(str(scheduler_file), RunOptions(), modules=()) as run:
        start("worker", "--nthreads", "1", "--name", "late-machine", PYTHONPATH=str(site))
        with Client(scheduler_file=str(scheduler_file)) as client:
            client.wait_for_workers(2, timeout=60)
        outcomes = list(run(tasks))
    assert len(outcomes) == 60
    assert not any(outcome.failed for outcome in outcomes)
    assert "refused: worker late-machine at " in caplog.text


def test_a_scheduler_that_dies(
    tmp_path: Path,
    reference: Path,
    catalog: Catalog,
    small_recipe: Recipe,
    scheduler_file: Path,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "s.zarr"
    scheduler = start("scheduler", "--port", "0")
    with monkeypatch.context() as patch:
        do_harm(patch, tmp_path / "site", min(catalog[4].path.iterdir()).name, "hang")
        start("worker", "--nthreads", "1", "--no-nanny")

    def end_scheduler() -> None:
        wait_for_a_record(path)
        kill(scheduler)

    ending = threading.Thread(target=end_scheduler)
    ending.start()
    with pytest.raises(ApexflowError, match="the Dask scheduler is gone"):
        process(catalog, path, recipe=small_recipe, scheduler=str(scheduler_file), progress=False)
    ending.join()
    process(catalog, path, recipe=small_recipe, workers=0, progress=False)
    assert_same_arrays(reference, path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("nanny", "became"),
    [("--nanny", "its nanny has ended it"), ("--no-nanny", "its clips go to other workers")],
)
def test_a_stopped_worker_of_somebody_elses_scheduler(
    tmp_path: Path,
    catalog: Catalog,
    small_recipe: Recipe,
    scheduler_file: Path,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    nanny: str,
    became: str,
) -> None:
    monkeypatch.setattr("apexflow.engine.run.dispatch.SECONDS_OF_SILENCE", 3.0)
    path = tmp_path / "s.zarr"
    start("scheduler", "--port", "0")
    to_stop = start("worker", "--nthreads", "1", nanny)
    stopped = []

    def stop_it() -> None:
        wait_for_a_record(path)
        stopped.append(worker_process(to_stop))
        os.kill(stopped[0], signal.SIGSTOP)
        if nanny == "--no-nanny":
            start("worker", "--nthreads", "1", "--no-nanny")

    stopping = threading.Thread(target=stop_it)
    stopping.start()
    options = {"scheduler": str(scheduler_file), "clip_timeout": 8, "progress": False}
    summary = process(catalog, path, recipe=small_recipe, **options)
    stopping.join()
    assert (summary.done, len(summary.failed)) == (5, 2)
    assert verify(path) == []
    assert sum("gives no sign of life" in text for text in caplog.messages) == 1
    assert became in caplog.text
    if nanny == "--no-nanny":  # awake again, it ends itself and writes nothing
        before = {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}
        os.kill(stopped[0], signal.SIGCONT)
        to_stop.wait(timeout=30)
        after = {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}
        assert after == before
    else:
        assert not Path(f"/proc/{stopped[0]}").exists()


def worker_process(started: subprocess.Popen[bytes]) -> int:
    """Return the process that computes: that of the command, or the one that its nanny started."""
    below = psutil.Process(started.pid).children(recursive=True)
    computing = [p.pid for p in below if "spawn_main" in " ".join(p.cmdline())]
    return computing[0] if computing else started.pid


def test_no_more_clips_are_in_flight_than_asked_for(
    tmp_path: Path,
    catalog: Catalog,
    small_recipe: Recipe,
    scheduler_file: Path,
    start: Start,
) -> None:
    """The tasks are drawn one by one: a counter of those drawn and not answered is bounded."""
    start("scheduler", "--port", "0")
    start("worker", "--nthreads", "1", "--no-nanny")
    drawn = answered = most = 0

    def tasks() -> Iterator[Task]:
        nonlocal drawn, most
        for task in many_tasks(tmp_path / "s.zarr", catalog, small_recipe, 60):
            drawn += 1
            most = max(most, drawn - answered)
            yield task

    with dask_scheduler(str(scheduler_file), RunOptions(), modules=()) as run:
        for outcome in run(tasks()):
            assert not outcome.failed
            answered += 1
    assert answered == 60
    # One thread has a batch in work and three ready; one of the first is a single clip, and no
    # batch is more than 0.2 s of clips.
    assert most <= 4 * MOST_CLIPS_A_BATCH
    assert most < 60


def test_a_scheduler_without_workers(
    tmp_path: Path,
    catalog: Catalog,
    small_recipe: Recipe,
    scheduler_file: Path,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("apexflow.engine.run.executors.CONNECT_SECONDS", 5)
    start("scheduler", "--port", "0")
    while not scheduler_file.exists():
        time.sleep(0.05)
    with pytest.raises(ApexflowError, match="has no workers; start one"):
        process(catalog, tmp_path / "s.zarr", recipe=small_recipe, scheduler=str(scheduler_file))


def test_a_worker_with_a_gpu_takes_part_until_it_is_killed(
    tmp_path: Path,
    reference: Path,
    catalog: Catalog,
    small_recipe: Recipe,
    scheduler_file: Path,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "s.zarr"
    start("scheduler", "--port", "0")
    start("worker", "--nthreads", "1", "--no-nanny", **{TROUBLE: "fails"})
    options = {"recipe": small_recipe, "scheduler": str(scheduler_file), "progress": False}
    with pytest.raises(ApexflowError, match=r"gpus is 1, and of the workers at .* 0 have a GPU"):
        process(catalog, path, gpus=1, **options)
    monkeypatch.setattr(gpus, "CUDA", "tests.engine.run.fake_gpus:FakeCuda")
    # It hangs at a clip in the middle, so that it dies with work in its hands.
    with_gpu = start(
        *("worker", "--nthreads", "1", "--resources", f"{RESOURCE}=1", "--no-nanny"),
        **{"PYTHONPATH": str(ROOT), TROUBLE: "hangs", CHOSEN: catalog[2].name},
    )
    with Client(scheduler_file=str(scheduler_file)) as client:
        client.wait_for_workers(2, timeout=60)

    def kill_it() -> None:
        wait_for_a_record(path)
        kill(with_gpu)

    killing = threading.Thread(target=kill_it)
    killing.start()
    summary = process(catalog, path, gpus=1, **options)
    killing.join()
    assert (summary.done, len(summary.failed)) == (5, 2)
    assert summary.devices["cpu"] >= 1
    assert_same_arrays(reference, path, but={"clips/record"})
    assert verify(open_store(path)) == []
