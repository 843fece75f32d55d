import importlib.util
import json
import os
import pickle
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest

from apexflow import process
from apexflow.catalog import Catalog, Clip
from apexflow.datasets import read_samm
from apexflow.engine.recipe import Recipe
from apexflow.errors import ApexflowError
from apexflow.storage.checks import verify
from apexflow.storage.store import open_store
from tests.engine.run.faults import do_harm, wait_for_a_record
from tests.stores import assert_same_arrays

QUIET = {"progress": False}


def sound(catalog: Catalog) -> Catalog:
    return catalog.select(lambda clip: clip.name not in ("028_4_1", "032_3_1"))


def first_frame(clip: Clip) -> Path:
    return min(clip.path.iterdir())


@pytest.mark.parametrize(
    ("harm", "timeout", "reason"),
    [
        ("segfault", 0, "its process died each time, isolated too, of SIGSEGV"),
        ("hang with the lock", 8, "not finished after 8 s"),
        pytest.param("exit", 0, "isolated too, with exit status 3", marks=pytest.mark.slow),
        pytest.param("hang", 12, "not finished after 12 s", marks=pytest.mark.slow),
    ],
)
def test_a_clip_that_kills_its_worker_costs_nothing_but_itself(
    tmp_path: Path,
    catalog: Catalog,
    small_recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    harm: str,
    timeout: float,
    reason: str,
) -> None:
    poisoned = sound(catalog)[2]
    do_harm(monkeypatch, tmp_path / "site", first_frame(poisoned).name, harm)
    path = tmp_path / "s.zarr"
    options = {"recipe": small_recipe, "workers": 2, "clip_timeout": timeout}
    summary = process(sound(catalog), path, **options, **QUIET)
    (failure,) = summary.failed
    assert failure.clip == str(poisoned)
    assert reason in failure.reason
    assert summary.done == 4
    assert verify(open_store(path)) == []


def test_a_stopped_worker_is_ended_from_outside(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own timer stands still with it."""
    clips = sound(catalog)
    monkeypatch.setattr("apexflow.engine.run.dispatch.SECONDS_OF_SILENCE", 3.0)
    path, stopped = tmp_path / "s.zarr", []

    def stop() -> None:
        wait_for_a_record(path)
        for pid in workers_of(os.getpid()):
            with suppress(OSError):  # `ps` itself is among them, and gone
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"spawn_main" in command and not stopped:
                    os.kill(pid, signal.SIGSTOP)
                    stopped.append(pid)

    stopping = threading.Thread(target=stop)
    stopping.start()
    options = {"recipe": small_recipe, "workers": 1, "clip_timeout": 12}
    summary = process(clips, path, **options, **QUIET)
    stopping.join()
    assert not any(map(alive, stopped))
    assert (summary.done, summary.failed) == (5, ())
    assert verify(path) == []


def test_a_clip_that_takes_all_memory_is_ended_alone(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apexflow.engine.run.isolated import run_isolated
    from apexflow.engine.run.task import Task, layout
    from apexflow.storage.create import create_store
    from apexflow.storage.format import Slot

    clip = catalog[0]
    do_harm(monkeypatch, tmp_path / "site", first_frame(clip).name, "memory")
    path = str(tmp_path / "s.zarr")
    create_store(path, layout=layout(small_recipe), recipe={}, recipe_hash="", provenance={})
    task = Task(clip, Slot(0, 0, 32), small_recipe, path, "", "run")
    outcome = run_isolated(task, clip_timeout=60, memory_limit=1 << 30)
    assert outcome.failed
    assert "MemoryError" in outcome.message


def command(root: Path, path: Path, recipe: Path, *more: str) -> list[str]:
    options = ["-o", str(path), "--recipe", str(recipe), "--quiet", *more]
    return [sys.executable, "-m", "apexflow", "process", "samm", str(root), *options]


def workers_of(parent: int) -> set[int]:
    """Return the processes that a run has started, and theirs."""
    found = subprocess.run(
        ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout.split()
    parents = dict(zip(map(int, found[::2]), map(int, found[1::2]), strict=True))
    family = {parent}
    while more := {pid for pid, above in parents.items() if above in family} - family:
        family |= more
    return family - {parent}


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_within_seconds_and_the_same_command_goes_on(
    tmp_path: Path,
    reference: Path,
    samm_root: Path,
    recipe_file: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    path, recipe = tmp_path / "s.zarr", recipe_file()
    last = first_frame(sound(read_samm(samm_root))[-1]).name
    with monkeypatch.context() as patch:
        do_harm(patch, tmp_path / "site", last, "hang")  # so that there is something to stop
        running = subprocess.Popen(
            command(samm_root, path, recipe, "--workers", "2"),
            stderr=subprocess.PIPE,
            text=True,
        )
    wait_for_a_record(path, running)
    workers = workers_of(running.pid)
    running.send_signal(number)
    _, said = running.communicate(timeout=20)
    assert running.returncode == 130
    assert said.strip() == "apexflow: stopped; the same command goes on from here"
    assert not any(map(alive, workers))
    process(read_samm(samm_root), path, recipe=recipe, workers=0, **QUIET)
    assert_same_arrays(reference, path)


def test_a_second_interrupt_is_immediate_and_leaves_nobody_behind(
    tmp_path: Path,
    samm_root: Path,
    recipe_file: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "s.zarr"
    last = first_frame(sound(read_samm(samm_root))[-1]).name
    do_harm(monkeypatch, tmp_path / "site", last, "hang")
    running = subprocess.Popen(command(samm_root, path, recipe_file(), "--workers", "2"))
    wait_for_a_record(path, running)
    workers = workers_of(running.pid)
    running.send_signal(signal.SIGINT)
    # Two signals before the first is handled are one.
    while running.poll() is None:
        running.send_signal(signal.SIGINT)
        time.sleep(0.001)
    assert running.returncode == 130
    deadline = time.monotonic() + 20
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "workers outlive their run"
        time.sleep(0.01)


def test_a_killed_run_leaves_nobody_behind(
    tmp_path: Path, samm_root: Path, recipe_file: Callable[[], Path]
) -> None:
    path = tmp_path / "s.zarr"
    running = subprocess.Popen(command(samm_root, path, recipe_file(), "--workers", "2"))
    wait_for_a_record(path, running)
    workers = workers_of(running.pid)
    assert workers
    running.kill()
    running.wait()
    deadline = time.monotonic() + 20
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "workers outlive their run"
        time.sleep(0.01)


def test_a_full_disk_ends_the_run_in_one_line_and_it_goes_on_later(
    tmp_path: Path, reference: Path, samm_root: Path, recipe_file: Callable[[], Path]
) -> None:
    path, recipe = tmp_path / "s.zarr", recipe_file()
    # A limit on the size of a file stops writing as a full disk does, with one errno for another.
    full = subprocess.run(
        command(samm_root, path, recipe, "--workers", "0"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 2
    (line,) = full.stderr.strip().splitlines()
    assert line.startswith(f"apexflow: error: cannot write to {path}: File too large")
    process(read_samm(samm_root), path, recipe=recipe, workers=0, **QUIET)
    assert_same_arrays(reference, path)
    assert list(path.rglob("*.partial")) == []


def test_a_second_run_is_refused_and_a_dead_ones_lock_is_none(
    tmp_path: Path,
    samm_root: Path,
    recipe_file: Callable[[], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, recipe = tmp_path / "s.zarr", recipe_file()
    last = first_frame(sound(read_samm(samm_root))[-1]).name
    with monkeypatch.context() as patch:
        do_harm(patch, tmp_path / "site", last, "hang")
        running = subprocess.Popen(command(samm_root, path, recipe, "--workers", "0"))
    wait_for_a_record(path, running)
    with pytest.raises(ApexflowError, match="another run is writing"):
        process(read_samm(samm_root), path, recipe=recipe, workers=0, **QUIET)
    running.kill()
    running.wait()
    assert process(read_samm(samm_root), path, recipe=recipe, workers=0, **QUIET).done >= 1


JUMPING = """
import itertools, sys, time
from apexflow import process, read_samm
real, calls = time.time, itertools.count()
# Half a year ahead, then an hour back.
time.time = lambda: real() + (0, 1.5e7, -3600)[min(next(calls) // 300, 2)]
root, target, recipe, workers = sys.argv[1:]
process(read_samm(root), target, recipe=recipe, workers=int(workers), progress=False)
"""


def test_a_clock_that_jumps(
    tmp_path: Path, reference: Path, samm_root: Path, recipe_file: Callable[[], Path]
) -> None:
    path = tmp_path / "s.zarr"
    arguments = [str(samm_root), str(path), str(recipe_file()), "2"]
    subprocess.run([sys.executable, "-c", JUMPING, *arguments], check=True, timeout=120)
    assert_same_arrays(reference, path)


def test_files_that_vanish_while_a_run_goes_on(
    tmp_path: Path, samm_root: Path, small_recipe: Recipe
) -> None:
    root = shutil.copytree(samm_root, tmp_path / "samm")
    catalog = sound(read_samm(root))
    gone = catalog[-1]

    from apexflow.engine.run import task as tasks

    real, calls = tasks.process_clip, []

    def vanish(clip: Clip, recipe: Recipe, backend: object) -> object:
        if not calls:
            shutil.rmtree(gone.path)
        calls.append(clip)
        return real(clip, recipe, backend)

    tasks.process_clip = vanish  # the moment is what is arranged, not the outcome
    try:
        summary = process(catalog, tmp_path / "s.zarr", recipe=small_recipe, workers=0, **QUIET)
    finally:
        tasks.process_clip = real
    assert summary.done == 4
    assert [failure.clip for failure in summary.failed] == [str(gone)]
    assert "No such file or directory" in summary.failed[0].reason


def test_damage_is_found_and_only_its_clips_are_done_again(
    tmp_path: Path, reference: Path, samm_root: Path, recipe_file: Callable[[], Path]
) -> None:
    path, recipe = shutil.copytree(reference, tmp_path / "s.zarr"), recipe_file()
    flipped = path / "flow" / "onset-apex" / "c.1.0.0.0"
    lost = path / "maps" / "hsv" / "c.2.0.0.0"
    record = path / "clips" / "record" / "c.4"
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 0x10
    flipped.write_bytes(content)
    lost.unlink()
    record.write_bytes(record.read_bytes()[:40])
    damages = verify(open_store(path))
    assert {damage.index for damage in damages} == {1, 2, 4}
    options = {"recipe": recipe, "workers": 0, **QUIET}
    # What is missing or cut short is found anyway, a changed byte by reading everything.
    summary = process(read_samm(samm_root), path, **options)
    assert (summary.done, summary.skipped) == (2, 3)
    assert {damage.index for damage in verify(open_store(path))} == {1}
    summary = process(read_samm(samm_root), path, repair=True, **options)
    assert (summary.done, summary.skipped) == (1, 4)
    assert verify(open_store(path)) == []
    assert_same_arrays(reference, path)


def test_files_that_are_no_frames(tmp_path: Path, samm_root: Path, small_recipe: Recipe) -> None:
    root = shutil.copytree(samm_root, tmp_path / "samm")
    catalog = sound(read_samm(root))
    picture = first_frame(catalog[0]).read_bytes()
    bomb = b"\xff\xd8\xff\xc0" + struct.pack(">HBHH", 17, 8, 60000, 60000) + picture
    contents = {
        catalog[0]: b"",
        catalog[1]: picture[: len(picture) // 3],
        catalog[2]: b"MZ this is not a picture" * 10,
        catalog[3]: bomb,
    }
    for clip, content in contents.items():
        first_frame(clip).write_bytes(content)
    summary = process(catalog, tmp_path / "s.zarr", recipe=small_recipe, workers=0, **QUIET)
    reasons = {failure.clip: failure.reason for failure in summary.failed}
    assert set(reasons) == {str(clip) for clip in contents}
    assert all(first_frame(c).name in reasons[str(c)] for c in contents)
    assert "claims 60000x60000 pixels" in reasons[str(catalog[3])]
    assert summary.done == 1


@pytest.mark.parametrize(
    "name", ["with space", "Gänsefüßchen 表情", "-rf", "a" * 200, "%41#?&;'\"", "a..."]
)
def test_odd_names_and_deep_folders(tmp_path: Path, small_recipe: Recipe, name: str) -> None:
    deep = "/".join(f"level {i}" for i in range(20))
    folder = tmp_path / "data" / deep / name
    folder.mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 250, (160, 200), dtype=np.uint8)
    for i in range(3):
        cv2.imencode(".png", image + np.uint8(i))[1].tofile(folder / f"{name[:100]}_{i}.png")
    clip = Clip(
        **{"dataset": "table", "subject": name, "name": name, "root": tmp_path / "data"},
        **{"source": f"{deep}/{name}", "onset": 0, "apex": 1, "offset": 2},
    )
    path = tmp_path / f"{name[:50]}.zarr"
    for _ in range(2):
        summary = process(Catalog([clip]), path, recipe=small_recipe, workers=0, **QUIET)
        assert not summary.failed
    assert summary.skipped == 1
    assert open_store(path).keys() == [("table", name, name)]
    assert verify(open_store(path)) == []


def test_names_that_are_paths_stay_inside(tmp_path: Path, small_recipe: Recipe) -> None:
    """A name is a value in a table, never part of a path; exports check it."""
    from apexflow.storage.export import export_maps, export_normalized

    folder = tmp_path / "data" / "clip"
    folder.mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 250, (160, 200), dtype=np.uint8)
    for i in range(3):
        cv2.imencode(".png", image + np.uint8(i))[1].tofile(folder / f"{i}.png")
    clip = Clip(
        **{
            "dataset": "../x",
            "subject": "../../up",
            "name": "/etc/evil",
            "root": tmp_path / "data",
        },
        **{"source": "clip", "onset": 0, "apex": 1, "offset": 2},
    )
    path = tmp_path / "box" / "s.zarr"
    path.parent.mkdir()
    summary = process(Catalog([clip]), path, recipe=small_recipe, workers=0, **QUIET)
    assert summary.done == 1
    before = {p for p in tmp_path.rglob("*") if not p.is_relative_to(tmp_path / "box")}
    for export in (export_maps, export_normalized):
        with suppress(ApexflowError):
            export(open_store(path), tmp_path / "box" / "out")
    after = {p for p in tmp_path.rglob("*") if not p.is_relative_to(tmp_path / "box")}
    assert after == before


def test_a_store_in_a_folder_that_cannot_be_written(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    readonly = Path("/proc/self")  # nobody writes here, not even root
    with pytest.raises(ApexflowError, match="cannot create the store"):
        process(catalog, readonly / "s.zarr", recipe=small_recipe, workers=0, **QUIET)


def test_a_store_of_pickled_objects_is_refused_unread(tmp_path: Path) -> None:
    """Zarr 2 can hold pickles, whose reading runs what their writer wished."""
    path, trap = tmp_path / "s.zarr", tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> object:
            return Path.touch, (trap,)

    (path / "clips" / "dataset").mkdir(parents=True)
    for folder in (path, path / "clips"):
        (folder / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".zattrs").write_text('{"format": 1, "recipe_hash": "x"}')
    array = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "order": "C"}
    array |= {"compressor": None, "fill_value": None, "filters": [{"id": "pickle", "protocol": 5}]}
    (path / "clips" / "dataset" / ".zarray").write_text(json.dumps(array))
    (path / "clips" / "dataset" / "0").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ApexflowError, match="is not an apexflow store"):
        open_store(path)
    assert not trap.exists()


def test_output_that_becomes_unwritable(
    tmp_path: Path, reference: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    path = tmp_path / "s.zarr"
    process(catalog[:2], path, recipe=small_recipe, workers=0, **QUIET)
    blocked = path / "flow" / "onset-apex" / "c.2.0.0.0"
    blocked.mkdir()  # a folder where a chunk belongs stops root as a mode does everyone else
    with pytest.raises(ApexflowError, match="cannot write to"):
        process(catalog, path, recipe=small_recipe, workers=0, **QUIET)
    blocked.rmdir()
    process(catalog, path, recipe=small_recipe, workers=0, repair=True, **QUIET)
    assert_same_arrays(reference, path)


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_random_kills(tmp_path: Path, kills: int) -> None:
    script = Path(__file__).parents[3] / "benchmarks" / "faults.py"
    spec = importlib.util.spec_from_file_location("faults_script", script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    tally = module.run(kills, kills, tmp_path)
    assert tally.sound, str(tally)
    assert tally.kills.total() == kills
