"""Kill runs at random moments and compare what they leave with an uninterrupted run.

    python benchmarks/faults.py --kills 50 --others 30 --seed 0

Every round starts the command again on the same store and, at a random moment, ends with
SIGKILL one of: a worker, all workers, the workers' nannies, the run itself, everything. When all
clips are done in spite of that, the store is compared, array by array and byte by byte, and a
new one begun. Then the other commands are killed in turn: compact, a run that brings a compacted
store back (expand), a repair, an export, a training. After each the store must be sound and as it
was, and the same command must end well. Counted are kills, clips done twice (done in the store
when a run began, and done again), stray files, and stores that differ: all but the first must
be 0.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import zarr

from apexflow import process, read_samm
from apexflow.engine.recipe import Recipe
from apexflow.storage.checks import verify
from apexflow.storage.compact import compact
from apexflow.storage.store import open_store
from apexflow.storage.writer import open_writer
from apexflow.synthetic import write_samm

SECONDS_A_RUN = 180
OTHERS = ("compact", "expand", "repair", "export", "train")
SECONDS_OF: dict[str, float] = {}
"""How long each other command took when it was left alone: its first round."""
VICTIMS = ("worker", "workers", "nannies", "run", "everything")
RECIPE = """\
base = "default"
[face]
detector = "fixed"
box = [60, 30, 140, 130]
[alignment]
margin = 6
[crop]
height = 64
width = 64
"""


@dataclass
class Tally:
    """What was seen; all but ``kills`` and ``stores`` are faults."""

    kills: Counter[str] = field(default_factory=Counter)
    stores: int = 0
    differing: list[str] = field(default_factory=list)
    done_twice: int = 0
    stray_files: int = 0
    failed: int = 0

    @property
    def sound(self) -> bool:
        return not (self.differing or self.done_twice or self.stray_files or self.failed)

    def __str__(self) -> str:
        kills = ", ".join(f"{name} {count}" for name, count in sorted(self.kills.items()))
        return (
            f"kills         {self.kills.total()} ({kills})\n"
            f"stores        {self.stores} finished after them, {len(self.differing)} differing "
            f"from the uninterrupted one{': ' if self.differing else ''}{self.differing or ''}\n"
            f"done twice    {self.done_twice} clips\n"
            f"stray files   {self.stray_files}\n"
            f"runs failed   {self.failed}"
        )


def run(
    kills: int,
    seed: int,
    folder: Path,
    *,
    clips: int = 24,
    others: int = 0,
    seconds: float = math.inf,
) -> Tally:
    """Kill that many runs, and as many other commands as said, or as long; say what was seen."""
    until = time.monotonic() + seconds
    rng = random.Random(seed)
    root, recipe = folder / "samm", folder / "recipe.toml"
    write_samm(root, subjects=3, clips=clips, frames=9, size=(160, 200), quality=95, faulty=False)
    recipe.write_text(RECIPE)
    reference = folder / "reference.zarr"
    catalog = read_samm(root)
    took = process(catalog, reference, recipe=Recipe.load(recipe), workers=0, progress=False)
    tally = Tally()
    while tally.kills.total() < kills and time.monotonic() < until:
        store = folder / f"{tally.stores}.zarr"
        command = [
            sys.executable,
            "-X",
            "faulthandler",
            "-m",
            "apexflow",
            "process",
            "samm",
            str(root),
            "-o",
            str(store),
        ]
        command += ["--recipe", str(recipe), "--workers", "2", "--gpus", "0", "--quiet"]
        while tally.kills.total() < kills and len(_written(store)) < clips:
            _round(command, store, rng, tally)
        _finish(command, store, reference, tally)
        shutil.rmtree(store)
    assert not took.failed
    for number in range(others):
        if time.monotonic() > until:
            break
        _other_round(OTHERS[number % len(OTHERS)], folder, reference, rng, tally)
    return tally


def _other_round(
    what: str, folder: Path, reference: Path, rng: random.Random, tally: Tally
) -> None:
    """Kill one command at a random moment, look at the store, and give the command again."""
    store = Path(shutil.copytree(reference, folder / "other.zarr"))
    out = folder / "out"
    if what == "expand":
        compact(store, chunk_bytes=1 << 15)
        # A clip to do again is what makes a run bring the small chunks back.
        open_writer(store).forget_row(0)
    elif what == "repair":
        victim = sorted((store / "maps" / "hsv").glob("c.*"))[1]
        victim.write_bytes(victim.read_bytes()[::-1])
    command = [sys.executable, "-m", "apexflow", *_arguments(what, store, folder, out)]
    took = SECONDS_OF.get(what)
    started = time.perf_counter()
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # The moment lies within what the command took when it was last left alone.
    if took is not None:
        time.sleep(rng.uniform(0.3, 1.0) * took)
        running.kill()
    running.wait()
    if took is None:
        SECONDS_OF[what] = time.perf_counter() - started
    else:
        tally.kills[what] += 1
        if what not in ("expand", "repair"):  # which have a clip to do yet
            tally.differing += [f"{what}: {damage}" for damage in verify(store)]
    ended = subprocess.run(command, timeout=SECONDS_A_RUN, capture_output=True, check=False)
    if ended.returncode != 0:
        tally.failed += 1
        print(f"{what}: status {ended.returncode}: {ended.stderr.decode()}", file=sys.stderr)
    tally.stray_files += len(list(store.rglob("*.partial")))
    tally.differing += [f"{what}: {damage}" for damage in verify(store)]
    tally.differing += [f"{what}: {name}" for name in _differences(reference, store)]
    tally.stray_files += len(list(out.rglob("*.partial"))) if out.exists() else 0
    for left in (store, out):
        shutil.rmtree(left, ignore_errors=True)


def _arguments(what: str, store: Path, folder: Path, out: Path) -> list[str]:
    if what == "compact":
        return ["compact", str(store), "--chunk-mb", "0.03"]
    if what == "export":
        return ["export", str(store), "--maps", str(out / "m"), "--gif", str(out / "g")]
    if what == "train":
        fed = ["--flow", "onset-apex", "--encode", "uv-strain", "--epochs", "2"]
        device = ["--device", "cpu", "--quiet", "-o", str(out)]
        return ["train", str(store), "--model", "ststnet", *fed, *device]
    options = ["--recipe", str(folder / "recipe.toml"), "--workers", "0", "--gpus", "0", "--quiet"]
    repair = ["--repair"] if what == "repair" else []
    return ["process", "samm", str(folder / "samm"), "-o", str(store), *options, *repair]


def _round(command: list[str], store: Path, rng: random.Random, tally: Tally) -> None:
    """Start the command, and kill at a random moment; or at once when it is done before."""
    before = _written(store)
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    victim = rng.choice(VICTIMS)
    # Half the kills fall while Dask starts, half while clips are being written.
    if rng.random() < 0.5:
        _wait_for_change(store, running)
        time.sleep(rng.uniform(0, 0.1))
    else:
        time.sleep(rng.uniform(0, 4))
    struck = _kill(running, victim)
    if victim in ("run", "everything"):
        running.communicate(timeout=60)
        _wait_until_gone(struck)
    else:
        try:
            said, _ = running.communicate(timeout=SECONDS_A_RUN)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGABRT)  # faulthandler says where it stands
            said, _ = running.communicate()
        if running.returncode != 0:
            tally.failed += 1
            print(f"{victim}: status {running.returncode}: {said.decode()}", file=sys.stderr)
    tally.kills[victim] += 1
    # A commit record has one write: a second one would have a later time.
    after = _written(store)
    tally.done_twice += sum(after.get(name) != stamp for name, stamp in before.items())


def _finish(command: list[str], store: Path, reference: Path, tally: Tally) -> None:
    before = _written(store)
    ended = subprocess.run(command, timeout=SECONDS_A_RUN, capture_output=True, check=False)
    tally.failed += ended.returncode != 0
    after = _written(store)
    tally.done_twice += sum(after.get(name) != stamp for name, stamp in before.items())
    tally.stray_files += len(list(store.rglob("*.partial")))
    tally.stray_files += len(_files(store) ^ _files(reference))
    tally.differing += _differences(reference, store)
    tally.differing += [str(damage) for damage in verify(open_store(store))]
    tally.stores += 1


def _files(store: Path) -> set[Path]:
    return {path.relative_to(store) for path in store.rglob("*") if path.is_file()}


def _written(store: Path) -> dict[str, int]:
    """Return when each commit record was written."""
    records = (store / "clips" / "record").glob("c.*")
    return {path.name: path.stat().st_mtime_ns for path in records if path.suffix != ".partial"}


def _wait_for_change(store: Path, running: subprocess.Popen[bytes]) -> None:
    before = len(_written(store))
    while running.poll() is None and len(_written(store)) == before:
        time.sleep(0.002)


def _kill(running: subprocess.Popen[bytes], victim: str) -> list[psutil.Process]:
    """SIGKILL the victim; return all processes that must be gone when the run is."""
    try:
        run_ = psutil.Process(running.pid)
        nannies = run_.children()
        workers = [below for nanny in nannies for below in nanny.children()]
    except psutil.NoSuchProcess:
        return []
    chosen = {
        "worker": workers[:1],
        "workers": workers,
        "nannies": nannies,
        "run": [run_],
        "everything": [run_, *nannies, *workers],
    }[victim]
    for process_ in chosen:
        try:
            os.kill(process_.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return [*nannies, *workers]


def _wait_until_gone(processes: list[psutil.Process]) -> None:
    _, left = psutil.wait_procs(processes, timeout=20)
    for process_ in left:
        raise SystemExit(f"process {process_} outlives its run")


def _differences(first: Path, second: Path) -> list[str]:
    """Return the arrays that are not equal byte for byte; seconds differ from run to run."""
    one, two = (zarr.open_group(str(path), mode="r") for path in (first, second))
    names = sorted(n for n, node in one.members(max_depth=None) if isinstance(node, zarr.Array))
    differing = []
    for name in names:
        a, b = np.asarray(one[name][...]), np.asarray(two[name][...])
        same = a.tolist() == b.tolist() if a.dtype.kind == "T" else a.tobytes() == b.tobytes()
        if name != "clips/timings" and (a.dtype != b.dtype or not same):
            differing.append(name)
    return differing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--others", type=int, default=35)
    parser.add_argument("--seconds", type=float, default=math.inf, help="end after that time")
    arguments = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        tally = run(
            *(arguments.kills, arguments.seed, Path(folder)),
            others=arguments.others,
            seconds=arguments.seconds,
        )
    print(tally)
    print(f"seconds       {time.perf_counter() - started:.0f}")
    sys.exit(not tally.sound)


if __name__ == "__main__":
    main()
