"""What Linux has of its own, and what takes its place where that is absent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from apexflow import system

ABSENT = """
import sys
for name in ("fcntl", "resource"):
    sys.modules[name] = None
import os
for name in ("killpg", "sched_getaffinity", "sync"):
    if hasattr(os, name):
        delattr(os, name)
"""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what Windows does not have."""
    for name in ("fcntl", "resource"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("killpg", "sched_getaffinity"):
        monkeypatch.delattr(os, name, raising=False)


def test_a_folder_is_locked_by_one(tmp_path: Path) -> None:
    first, second = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    try:
        assert system.locks_folders()
        system.lock_folder(first)
        with pytest.raises(BlockingIOError):
            system.lock_folder(second, shared=True)
    finally:
        os.close(first)
        os.close(second)


@pytest.mark.usefixtures("bare")
def test_where_nothing_locks_nothing_is_locked(tmp_path: Path) -> None:
    handles = [os.open(tmp_path, os.O_RDONLY) for _ in range(2)]
    assert not system.locks_folders()
    for handle in handles:
        system.lock_folder(handle)
        os.close(handle)
    assert system.cores() == os.cpu_count()
    system.limit_memory(1 << 20)
    assert len(bytes(4 << 20)) == 4 << 20


def _family() -> tuple[subprocess.Popen[bytes], int]:
    """Start a process with a child; return it and the child's id."""
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\ntime.sleep(600)"
    )
    command = [sys.executable, "-c", code]
    leader = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert leader.stdout is not None
    return leader, int(leader.stdout.readline())


def _ends_with_its_child() -> None:
    import psutil

    leader, child = _family()
    process = psutil.Process(child)
    system.end_group(leader.pid)
    assert leader.wait(60) != 0
    gone, _ = psutil.wait_procs([process], timeout=60)
    assert gone or process.status() == psutil.STATUS_ZOMBIE
    system.end_group(leader.pid)  # once more does no harm
    assert leader.stdout is not None
    leader.stdout.close()


def test_a_group_ends_as_one() -> None:
    _ends_with_its_child()


@pytest.mark.usefixtures("bare")
def test_a_group_ends_as_one_where_there_are_none() -> None:
    _ends_with_its_child()


def test_a_run_goes_through_without_what_linux_has(
    tmp_path: Path, samm_root: Path, recipe_file: Callable[[], Path]
) -> None:
    code = f"""{ABSENT}
from apexflow.cli import cli
cli(["process", "samm", {str(samm_root)!r}, "-o", {str(tmp_path / "s.zarr")!r},
     "--recipe", {str(recipe_file())!r}, "--workers", "0", "--quiet"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr  # two clips of the data set are faulty
    assert "5 clips, 45 frames" in done.stdout
    assert "cannot be locked here" in done.stderr
