import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from apexflow import process
from apexflow.catalog import Catalog
from apexflow.datasets import read_samm
from apexflow.engine.recipe import Recipe
from apexflow.engine.run.executors import RunOptions, local_workers
from apexflow.errors import ApexflowError
from apexflow.storage.checks import verify
from apexflow.storage.store import open_store
from apexflow.storage.target import exclusive
from tests.engine.run.faults import wait_for_a_record
from tests.stores import assert_same_arrays, many_tasks

FAULTY = {"samm/028/028_4_1", "samm/032/032_3_1"}


def test_one_bad_clip_costs_nothing_but_itself(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    summary = process(catalog, tmp_path / "s.zarr", recipe=small_recipe, workers=0, progress=False)
    assert (summary.done, summary.skipped, summary.frames) == (5, 0, 45)
    assert {failure.clip for failure in summary.failed} == FAULTY
    assert "apex 1088 lies after offset 1079" in str(summary)
    assert "apex 1930 lies before onset 4896" in str(summary)


def test_a_second_run_does_only_what_failed(
    tmp_path: Path, reference: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    path = shutil.copytree(reference, tmp_path / "s.zarr")
    summary = process(catalog, path, recipe=small_recipe, workers=0, progress=False)
    assert (summary.done, summary.skipped, len(summary.failed)) == (0, 5, 2)
    assert_same_arrays(reference, path)


def test_a_grown_catalog_appends(
    tmp_path: Path, reference: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    path = tmp_path / "s.zarr"
    process(catalog[:3], path, recipe=small_recipe, workers=0, progress=False)
    summary = process(catalog, path, recipe=small_recipe, workers=0, progress=False)
    assert summary.done + summary.skipped == 5
    assert summary.skipped == 3
    assert_same_arrays(reference, path)


def test_changed_and_returned_files_are_processed_again(
    tmp_path: Path, reference: Path, samm_root: Path, small_recipe: Recipe
) -> None:
    root = shutil.copytree(samm_root, tmp_path / "samm")
    path = tmp_path / "s.zarr"
    frame = next((root / "006").rglob("*.jpg"))
    away = frame.rename(tmp_path / frame.name)
    first = process(read_samm(root), path, recipe=small_recipe, workers=0, progress=False)
    missing = [failure.reason for failure in first.failed if "not on disk" in failure.reason]
    assert len(missing) == 1
    assert str(frame.parent) in missing[0]
    away.rename(frame)
    second = process(read_samm(root), path, recipe=small_recipe, workers=0, progress=False)
    assert (second.done, second.skipped) == (1, 4)
    os.utime(frame, ns=(1, 1))
    third = process(read_samm(root), path, recipe=small_recipe, workers=0, progress=False)
    assert (third.done, third.skipped) == (1, 4)
    one, two = open_store(reference), open_store(path)
    for name in ("flow/onset-apex", "maps/hsv"):
        np.testing.assert_array_equal(one.array(name)[:], two.array(name)[:])
    assert verify(two) == []


def test_another_recipe_is_refused_with_both_hashes(
    reference: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    other = replace(small_recipe, frames=replace(small_recipe.frames, which="all"))
    with pytest.raises(ApexflowError) as refusal:
        process(catalog, reference, recipe=other, workers=0, progress=False)
    assert small_recipe.hash[:12] in str(refusal.value)
    assert other.hash[:12] in str(refusal.value)


@pytest.mark.parametrize("kind", ["file", "folder", "array"])
def test_what_is_no_store_is_left_alone(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe, kind: str
) -> None:
    path = tmp_path / "mine"
    if kind == "file":
        path.write_text("thesis")
    elif kind == "folder":
        path.mkdir()
        (path / "thesis").touch()
    else:
        zarr.create_array(str(path), data=np.zeros(3))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ApexflowError, match="is not an apexflow store"):
        process(catalog, path, recipe=small_recipe, workers=0, progress=False)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_in_memory(reference: Path, catalog: Catalog, small_recipe: Recipe) -> None:
    memory = zarr.storage.MemoryStore()
    process(catalog, memory, recipe=small_recipe, workers=0, progress=False)
    stored = zarr.open_group(memory, mode="r")["maps/hsv"]
    np.testing.assert_array_equal(stored[:], open_store(reference).array("maps/hsv")[:])


def test_two_runs_on_one_store_are_refused(
    reference: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    with exclusive(reference), pytest.raises(ApexflowError, match="another run is writing"):
        process(catalog, reference, recipe=small_recipe, workers=0, progress=False)


def test_a_run_that_another_one_preceded_by_a_moment_makes_no_store(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    path = tmp_path / "s.zarr"
    path.mkdir()
    with exclusive(path), pytest.raises(ApexflowError, match="another run is writing"):
        process(catalog, path, recipe=small_recipe, workers=0, progress=False)
    assert list(path.iterdir()) == []


def test_local_workers_give_the_same_bytes(
    tmp_path: Path, reference: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    path = tmp_path / "s.zarr"
    summary = process(catalog, path, recipe=small_recipe, workers=3, progress=False)
    assert (summary.done, len(summary.failed)) == (5, 2)
    assert_same_arrays(reference, path)


@pytest.fixture
def dask_cluster(tmp_path: Path) -> Iterator[str]:
    """A scheduler and a worker started as separate commands."""
    file = tmp_path / "scheduler.json"
    common = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    python = [sys.executable, "-m", "distributed.cli"]
    scheduler = [f"{python[2]}.dask_scheduler", "--scheduler-file", str(file), "--port", "0"]
    worker = [f"{python[2]}.dask_worker", "--scheduler-file", str(file), "--nthreads", "2"]
    quiet = ["--no-dashboard"]
    processes = [
        subprocess.Popen([*python[:2], *command, *quiet], **common)
        for command in (scheduler, worker)
    ]
    yield str(file)
    for running in processes:
        running.kill()
    for running in processes:
        running.wait(timeout=30)


def test_where_kernels_are_not_compiled_the_first_clip_goes_alone(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    path = tmp_path / "s.zarr"
    tasks = many_tasks(path, catalog, small_recipe, 6)
    bad = replace(tasks[0], clip=replace(tasks[0].clip, apex=1))
    modules = ("apexflow.engine.run.task",)
    with local_workers(2, RunOptions(), modules=modules, compile_first=True) as run_tasks:
        outcomes = run_tasks([bad, *tasks[1:]])
        assert next(outcomes).failed  # which has compiled nothing
        assert not next(outcomes).failed
        records = open_store(path).records()
        assert [record is not None for record in records] == [True] * 2 + [False] * 4
        assert [outcome.failed for outcome in outcomes] == [False] * 4


def test_a_scheduler_elsewhere_gives_the_same_bytes(
    tmp_path: Path,
    reference: Path,
    catalog: Catalog,
    small_recipe: Recipe,
    dask_cluster: str,
) -> None:
    path = tmp_path / "s.zarr"
    summary = process(catalog, path, recipe=small_recipe, scheduler=dask_cluster, progress=False)
    assert (summary.done, len(summary.failed)) == (5, 2)
    assert_same_arrays(reference, path)


def test_a_scheduler_that_does_not_answer(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apexflow.engine.run.executors.CONNECT_SECONDS", 1)
    with pytest.raises(ApexflowError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1 "):
        process(catalog, tmp_path / "s.zarr", recipe=small_recipe, scheduler="tcp://127.0.0.1:1")
    assert not (tmp_path / "s.zarr").exists()


KILL_DURING = """
import os, signal, sys
from apexflow import process, read_samm
from apexflow.storage import columns, writer

root, target, recipe, step, count = sys.argv[1:]
place = next(p for p in (writer.StoreWriter, columns._Columns, writer) if hasattr(p, step))
real = getattr(place, step)
calls = 0

def die(*args, **options):
    global calls
    calls += 1
    if calls == int(count):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **options)

setattr(place, step, die)
process(read_samm(root), target, recipe=recipe, workers=0, progress=False)
"""


@pytest.mark.parametrize(
    ("step", "count"),
    [
        *[("commit", 1), ("commit", 3), ("commit", 7)],
        *[("reserve", 1), ("_resize", 1), ("_write_column", 5), ("_set_clip_attrs", 1)],
        *[("begin", 1), ("finalize", 1), ("_write", 2), ("write_csv", 1)],
    ],
)
def test_a_kill_at_any_step_then_the_same_command(
    tmp_path: Path,
    reference: Path,
    samm_root: Path,
    recipe_file: Callable[[], Path],
    step: str,
    count: int,
) -> None:
    path = tmp_path / "s.zarr"
    arguments = [str(samm_root), str(path), str(recipe_file()), step, str(count)]
    command = [sys.executable, "-c", KILL_DURING, *arguments]
    killed = subprocess.run(command, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    process(read_samm(samm_root), path, recipe=recipe_file(), workers=0, progress=False)
    assert_same_arrays(reference, path)
    assert verify(open_store(path)) == []
    assert list(path.rglob("*.partial")) == []


def test_a_killed_run_of_worker_processes_goes_on(
    tmp_path: Path, reference: Path, samm_root: Path, recipe_file: Callable[[], Path]
) -> None:
    path = tmp_path / "s.zarr"
    command = [sys.executable, "-m", "apexflow", "process", "samm", str(samm_root)]
    command += ["-o", str(path), "--recipe", str(recipe_file()), "--workers", "2", "--quiet"]
    running = subprocess.Popen(command, start_new_session=True)
    wait_for_a_record(path, running)  # the first commit is the moment to strike
    os.killpg(running.pid, signal.SIGKILL)
    running.wait(timeout=30)
    finished = subprocess.run(command, timeout=120, check=False, capture_output=True, text=True)
    assert finished.returncode == 1, finished.stderr
    assert_same_arrays(reference, path)


def test_half_made_stores_are_made_again(
    tmp_path: Path, reference: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    path = tmp_path / "s.zarr"
    path.mkdir()
    (path / "zarr.0123.partial").write_text("{")
    process(catalog, path, recipe=small_recipe, workers=0, progress=False)
    assert_same_arrays(reference, path)


class Browser(logging.Handler):
    """Opens the page whose address is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.pages: list[bytes] = []

    def emit(self, record: logging.LogRecord) -> None:
        if found := re.search(r"http://127\.0\.0\.1:\d+/status", record.getMessage()):
            with urllib.request.urlopen(found.group(), timeout=30) as page:
                self.pages.append(page.read())


def test_dasks_dashboard_and_report(tmp_path: Path, catalog: Catalog, small_recipe: Recipe) -> None:
    report, browser = tmp_path / "report.html", Browser()
    logging.getLogger("apexflow").addHandler(browser)
    try:
        process(
            *(catalog[:2], tmp_path / "s.zarr"),
            **{"recipe": small_recipe, "workers": 1, "progress": False},
            **{"dashboard": True, "performance_report": report},
        )
    finally:
        logging.getLogger("apexflow").removeHandler(browser)
    assert b"Dask" in browser.pages[0]
    assert "run_batch" in report.read_text()
