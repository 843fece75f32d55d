"""The whole chain against the decode floor and against a straightforward script.

    python benchmarks/engine.py                  # makes a SAMM-shaped set and prints the table
    python benchmarks/engine.py --root SAMM      # the same on a set of your own
    python benchmarks/engine.py --overhead 1000 10000 100000

The floor is cv2.imdecode of every frame that the recipe reads, on as many cores as there are
workers, one thread a core, in a process of its own. It is there twice: as any script decodes,
and in a process that keeps a frame's memory for the next one, as apexflow's workers do. The
script does what the published SAMM workflow does, as it does it: MTCNN at full size on the
middle frame, cv2.matchTemplate on three channels, cv2.resize, one JPEG a frame, Farnebäck and
the HSV map of onset and apex.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import psutil

from apexflow import process, read_samm
from apexflow.catalog import Catalog, Clip
from apexflow.engine.clip import process_clip
from apexflow.engine.clip.clock import STAGES
from apexflow.engine.clip.plan import plan_clip
from apexflow.engine.recipe import Recipe
from apexflow.synthetic import write_samm
from apexflow.system import keep_freed_memory

FLOORS = {"decode floor": False, "decode floor, memory kept": True}
"""What is measured against, and whether memory is kept."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="a SAMM folder; one is made otherwise")
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--frames", type=int, default=75)
    parser.add_argument("--size", type=int, nargs=2, default=(1088, 2040))
    parser.add_argument("--copies", type=int, default=2, help="times that each clip is processed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--overhead", type=int, nargs="*", help="sizes of catalogs of tiny clips")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.overhead is not None:
            overhead(Path(folder), arguments.overhead or [1000, 10_000, 100_000])
            return
        root = arguments.root or Path(folder) / "samm"
        if arguments.root is None:
            size = tuple(arguments.size)
            write_samm(
                *(root,),
                **{"subjects": min(4, arguments.clips), "clips": arguments.clips},
                **{"frames": arguments.frames, "size": size, "faulty": False},
            )
        chain(Path(folder), read_samm(root), arguments.copies, arguments.rounds)


# The chain.


def chain(folder: Path, catalog: Catalog, copies: int, rounds: int) -> None:
    """Print CPU seconds of one core, and wall-clock seconds of one and of two workers."""
    everything = Recipe.load("default")
    maps = Recipe.from_dict(everything.to_dict() | {"frames": {"which": "windows", "keep": False}})
    many = Catalog(
        replace(clip, name=f"{clip.name}.{copy}") for copy in range(copies) for clip in catalog
    )
    for recipe in (everything, maps):
        process_clip(catalog[0], recipe)  # compiles, and loads the detector
    print(f"{len(catalog)} clips, {_frames(catalog, everything)} frames")
    one_core(folder, many, everything, maps, rounds)
    workers(folder, many, everything, maps, rounds)


def one_core(folder: Path, clips: Catalog, everything: Recipe, maps: Recipe, rounds: int) -> None:
    """Compare CPU time: what other programs do on the machine matters less to it.

    A run's own beginning and end are there once, as in any run.
    """
    cv2.setNumThreads(1)
    few = clips[: max(1, len(clips) // 12)]  # for the slow script
    seconds: dict[str, list[float]] = {}
    stages: dict[str, list[float]] = {stage: [] for stage in STAGES}

    def count(name: str, number: int, spent: float) -> None:
        seconds.setdefault(name, []).append(spent / number)

    for _ in range(rounds):
        for name, keep in FLOORS.items():
            count(name, len(clips), floor(folder, clips, everything, 1, keep)[0])
        kept = _cpu(lambda: serial(folder, clips, everything, stages))
        count("everything kept", len(clips), kept)
        count("maps only", len(clips), _cpu(lambda: serial(folder, clips, maps, None)))
        count("script", len(few), _cpu(lambda: script(few, folder / "script")))
    median = {name: statistics.median(found) for name, found in seconds.items()}
    print(f"\none core, CPU ms a clip, median of {rounds}, and times each floor")
    for name, spent in median.items():
        times = "   ".join(f"{spent / median[floor_]:6.2f}" for floor_ in FLOORS)
        print(f"  {name:28s} {1e3 * spent:8.1f}   {times}")
    print("stages of everything kept, wall-clock ms a clip")
    for stage, found in stages.items():
        if found:
            print(f"  {stage:28s} {1e3 * statistics.median(found) / len(clips):8.1f}")


def workers(folder: Path, many: Catalog, everything: Recipe, maps: Recipe, rounds: int) -> None:
    """Compare wall-clock time of one and two workers, start-up apart."""
    seconds: dict[str, list[float]] = {}

    def count(name: str, spent: float) -> None:
        seconds.setdefault(name, []).append(spent)

    for _ in range(rounds):
        first = _wall(lambda: run(folder, many[:1], everything, 2))
        count("first clip of a run", first)
        for number in (1, 2):
            for name, keep in FLOORS.items():
                spent = floor(folder, many, everything, number, keep)[1]
                count(f"{name}, {number}", spent / len(many))
            count(f"everything kept, {number}", run(folder, many, everything, number))
        count("maps only, 2", run(folder, many, maps, 2))
        cv2.setNumThreads(2)
        some = many[: max(1, len(many) // 12)]
        spent = _wall(lambda some=some: script(some, folder / "script"))
        count("script", spent / len(some))
        cv2.setNumThreads(1)
    median = {name: statistics.median(found) for name, found in seconds.items()}
    print(f"\nwall-clock ms a clip, {len(many)} clips, median of {rounds}")
    for name, value in median.items():
        print(f"  {name:30s} {1e3 * value:8.1f}")
    two = median["everything kept, 2"]
    for name in FLOORS:
        print(f"everything kept / {name}, two workers  {two / median[f'{name}, 2']:.2f}")
    print(f"script / everything kept    {median['script'] / two:.1f}")
    print(f"script / maps only          {median['script'] / median['maps only, 2']:.1f}")
    print(f"one worker / two workers    {median['everything kept, 1'] / two:.2f}")


def floor(
    folder: Path, catalog: Catalog, recipe: Recipe, threads: int, keep: bool
) -> tuple[float, float]:
    """Return the seconds of CPU and of wall-clock time that decoding alone takes."""
    files = folder / "files.txt"
    files.write_text("\n".join(str(file) for clip in catalog for file in _files(clip, recipe)))
    code = f"import engine; engine.decode({str(files)!r}, {threads}, {keep})"
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=Path(__file__).parent)
    cpu, wall = map(float, printed.split())
    return cpu, wall


def decode(files: str, threads: int, keep: bool) -> None:
    """Decode the files of a list and print the seconds of CPU and of wall-clock time."""
    cv2.setNumThreads(1)
    if keep:
        keep_freed_memory()
    paths = [Path(line) for line in Path(files).read_text().splitlines()]

    def one(path: Path) -> None:
        cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)

    def every() -> None:
        if threads == 1:
            for path in paths:
                one(path)
            return
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(one, paths))

    for path in paths[:10]:
        one(path)
    started = time.perf_counter()
    print(_cpu(every), time.perf_counter() - started)


def serial(
    folder: Path, catalog: Catalog, recipe: Recipe, stages: dict[str, list[float]] | None
) -> None:
    store = folder / "serial.zarr"
    summary = process(catalog, store, recipe=recipe, workers=0, progress=False)
    assert not summary.failed, summary.failed
    if stages is not None:
        for stage, found in summary.stage_seconds.items():
            stages[stage].append(found)
    shutil.rmtree(store)


def run(folder: Path, catalog: Catalog, recipe: Recipe, number: int) -> float:
    """Process a catalog; return the seconds a clip in the middle of the run, by its commits."""
    store = folder / "run.zarr"
    summary = process(catalog, store, recipe=recipe, workers=number, gpus=0, progress=False)
    assert not summary.failed, summary.failed
    committed = sorted(path.stat().st_mtime for path in (store / "clips/record").glob("c.*"))
    shutil.rmtree(store)
    # The first clips of each worker wait for what it loads.
    later = committed[min(4 * number, len(committed) - 1) :]
    return (later[-1] - later[0]) / max(1, len(later) - 1)


def script(catalog: Sequence[Clip], folder: Path) -> None:
    """Do what the published SAMM workflow does, with the libraries that it uses."""
    # Here, so that torch does not count as memory of the coordinator.
    from facenet_pytorch import MTCNN

    mtcnn = MTCNN(image_size=224, margin=20, keep_all=False, post_process=False, device="cpu")
    for clip in catalog:
        out = folder / clip.subject / clip.name
        out.mkdir(parents=True, exist_ok=True)
        files = sorted(clip.path.iterdir())
        middle = cv2.imread(str(files[len(files) // 2]))
        boxes, _ = mtcnn.detect(cv2.cvtColor(middle, cv2.COLOR_BGR2RGB))
        x0, y0, x1, y1 = (int(value) for value in boxes[0])
        template = middle[y0:y1, x0:x1]
        top, left = max(y0 - 40, 0), max(x0 - 40, 0)
        for file in files:
            frame = cv2.imread(str(file))
            region = frame[top : y1 + 40, left : x1 + 40]
            found = cv2.matchTemplate(region, template, cv2.TM_CCOEFF_NORMED)
            _, _, _, (dx, dy) = cv2.minMaxLoc(found)
            crop = region[dy : dy + y1 - y0, dx : dx + x1 - x0]
            cv2.imwrite(str(out / file.name), cv2.resize(crop, (224, 224)))
        numbers = {int(file.stem.split("_")[-1]): file.name for file in files}
        onset, apex = (
            cv2.imread(str(out / numbers[n]), cv2.IMREAD_GRAYSCALE) for n in (clip.onset, clip.apex)
        )
        flow = cv2.calcOpticalFlowFarneback(onset, apex, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        magnitude, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1], angleInDegrees=True)
        hsv = np.full((*magnitude.shape, 3), 255, np.uint8)
        hsv[..., 0] = angle / 2
        hsv[..., 2] = cv2.normalize(magnitude, None, 0, 255, cv2.NORM_MINMAX)
        picture = cv2.resize(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), (28, 28), cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{clip.name}.png"), picture)
    shutil.rmtree(folder)


def _files(clip: Clip, recipe: Recipe) -> list[Path]:
    source, plan = plan_clip(clip, recipe)
    return [clip.path / source.file_name(number) for number in plan.numbers]


def _frames(catalog: Catalog, recipe: Recipe) -> int:
    return sum(len(_files(clip, recipe)) for clip in catalog)


def _cpu(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _wall(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


# What the engine itself costs.


def overhead(folder: Path, sizes: Sequence[int]) -> None:
    """Print what a clip costs beyond its own work, and the memory of the coordinator.

    Clips of two 32x32 images, on two workers; each size in a process of its own.
    """
    print("clips    own work ms   a clip ms   overhead ms   coordinator MB (catalog alone)")
    for size in sizes:
        code = f"import engine; engine.tiny({str(folder)!r}, {size})"
        subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


def tiny(folder: str, count: int) -> None:
    root, store = Path(folder) / "tiny", Path(folder) / "tiny.zarr"
    (root / "clip").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(2):
        image = rng.integers(0, 255, (32, 32), dtype=np.uint8)
        cv2.imwrite(str(root / "clip" / f"{i}.png"), image)
    recipe = _tiny_recipe()
    catalog = Catalog(
        Clip(
            **{"dataset": "table", "subject": f"{i % 100:03d}", "name": f"{i:06d}", "root": root},
            **{"source": "clip", "onset": 0, "apex": 1, "person": "one"},
        )
        for i in range(count)
    )
    process_clip(catalog[0], recipe)
    started = time.perf_counter()
    for clip in catalog[:500]:
        process_clip(clip, recipe)
    own = (time.perf_counter() - started) / min(500, count)
    me = psutil.Process()
    before = me.memory_info().rss
    peak = _Peak(me)
    started = time.perf_counter()
    summary = process(catalog, store, recipe=recipe, workers=2, gpus=0, progress=False)
    spent = (time.perf_counter() - started) / count
    most = peak.stop()
    assert summary.done == count, summary.failed[:1]
    print(
        f"{count:6d}   {1e3 * own:11.2f}   {1e3 * spent:9.2f}   {1e3 * (spent - own / 2):11.2f}"
        f"   {most / 2**20:8.0f} ({before / 2**20:.0f})",
        flush=True,
    )
    shutil.rmtree(store)


def _tiny_recipe() -> Recipe:
    values = Recipe.load("default").to_dict()
    values["face"] |= {"detector": "fixed", "box": None}
    values["alignment"]["method"] = "none"
    values["crop"] |= {"height": 16, "width": 16}
    values["frames"] |= {"which": "windows", "keep": False}
    values["maps"]["hsv"]["size"] = [8, 8]
    return Recipe.from_dict(values)


class _Peak:
    """The most memory that a process held, looked at twenty times a second."""

    def __init__(self, process_: psutil.Process) -> None:
        self._most, self._on = process_.memory_info().rss, True
        self._process = process_
        self._pool = ThreadPoolExecutor(1)
        self._looking = self._pool.submit(self._look)

    def _look(self) -> None:
        while self._on:
            self._most = max(self._most, self._process.memory_info().rss)
            time.sleep(0.05)

    def stop(self) -> int:
        self._on = False
        self._looking.result()
        self._pool.shutdown()
        return self._most


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
