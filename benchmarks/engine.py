"""The whole chain against the decode floor and against a straightforward script.

    python benchmarks/engine.py                  # makes a SAMM-shaped set and prints the table
    python benchmarks/engine.py --root SAMM      # the same on a set of your own
    python benchmarks/engine.py --overhead 1000 10000 100000

The floor is cv2.imdecode of every frame that the recipe reads, on as many cores as there are
workers, one thread a core. The script does what the published SAMM workflow does, as it does
it: MTCNN at full size on the middle frame, cv2.matchTemplate on three channels, cv2.resize,
one JPEG a frame, Farnebäck and the HSV map of onset and apex.
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
from apexflow.engine.process import STAGES, plan_clip, process_clip
from apexflow.engine.recipe import Recipe
from apexflow.engine.synthetic import write_samm


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
    few = catalog[: max(1, len(catalog) // 4)]
    for recipe in (everything, maps):
        process_clip(few[0], recipe)  # compiles, and loads the detector
    print(f"{len(catalog)} clips, {_frames(catalog, everything)} frames")
    one_core(folder, catalog, few, everything, maps, rounds)
    workers(folder, many, everything, maps, rounds)


def one_core(
    folder: Path, clips: Catalog, few: Catalog, everything: Recipe, maps: Recipe, rounds: int
) -> None:
    """Compare CPU time: what other programs do on the machine matters less to it.

    A run's own beginning and end are there once, as in any run; ``few`` is for the slow script.
    """
    cv2.setNumThreads(1)
    seconds: dict[str, list[float]] = {}
    stages: dict[str, list[float]] = {stage: [] for stage in STAGES}

    def count(name: str, number: int, work: Callable[[], object]) -> None:
        seconds.setdefault(name, []).append(_cpu(work) / number)

    for _ in range(rounds):
        count("decode floor", len(clips), lambda: decode(clips, everything, 1))
        count("everything kept", len(clips), lambda: serial(folder, clips, everything, stages))
        count("maps only", len(clips), lambda: serial(folder, clips, maps, None))
        count("script", len(few), lambda: script(few, folder / "script"))
    floor = statistics.median(seconds["decode floor"])
    ratios = zip(seconds["everything kept"], seconds["decode floor"], strict=True)
    print(f"\none core, CPU ms a clip, median of {rounds}")
    for name, found in seconds.items():
        spent = statistics.median(found)
        print(f"  {name:16s} {1e3 * spent:8.1f}   {spent / floor:6.2f} x the floor")
    print(f"  everything kept / floor, round by round: {[f'{a / b:.2f}' for a, b in ratios]}")
    print("stages of everything kept, wall-clock ms a clip")
    for stage, found in stages.items():
        if found:
            print(f"  {stage:16s} {1e3 * statistics.median(found) / len(clips):8.1f}")


def workers(folder: Path, many: Catalog, everything: Recipe, maps: Recipe, rounds: int) -> None:
    """Compare wall-clock time of one and two workers, start-up apart."""
    seconds: dict[str, list[float]] = {}

    def count(name: str, work: Callable[[], object]) -> None:
        started = time.perf_counter()
        work()
        seconds.setdefault(name, []).append(time.perf_counter() - started)

    for _ in range(rounds):
        count("start", lambda: run(folder, many[:1], everything, 2))
        for number in (1, 2):
            count(f"floor {number}", lambda n=number: decode(many, everything, n))
            count(f"everything {number}", lambda n=number: run(folder, many, everything, n))
        count("maps 2", lambda: run(folder, many, maps, 2))
        cv2.setNumThreads(2)
        count("script", lambda: script(many[: max(1, len(many) // 8)], folder / "script"))
        cv2.setNumThreads(1)
    median = {name: statistics.median(found) for name, found in seconds.items()}
    start = median.pop("start")
    clips = len(many)
    a_clip = {
        name: value / (max(1, clips // 8) if name == "script" else clips)
        for name, value in median.items()
    }
    for name in ("everything 1", "everything 2", "maps 2"):
        a_clip[name] = (median[name] - start) / clips
    print(
        f"\nwall-clock ms a clip, {clips} clips, without start-up (first clip after {start:.1f} s)"
    )
    for name, value in a_clip.items():
        print(f"  {name:16s} {1e3 * value:8.1f}")
    two, script_ = a_clip["everything 2"], a_clip["script"]
    print(f"everything kept / floor, two workers  {two / a_clip['floor 2']:.2f}")
    print(f"script / everything kept              {script_ / two:.1f}")
    print(f"script / maps only                    {script_ / a_clip['maps 2']:.1f}")
    print(f"one worker / two workers              {a_clip['everything 1'] / two:.2f}")


def decode(catalog: Catalog, recipe: Recipe, threads: int) -> None:
    files = [file for clip in catalog for file in _files(clip, recipe)]

    def one(path: Path) -> None:
        cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)

    if threads == 1:
        for file in files:
            one(file)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(one, files))


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


def run(folder: Path, catalog: Catalog, recipe: Recipe, number: int) -> None:
    store = folder / "run.zarr"
    summary = process(catalog, store, recipe=recipe, workers=number, progress=False)
    assert not summary.failed, summary.failed
    shutil.rmtree(store)


def script(catalog: Sequence[Clip], folder: Path) -> None:
    """Do what the published SAMM workflow does, with the libraries that it uses."""
    # Here, so that torch does not count as memory of the coordinator.
    from facenet_pytorch import MTCNN  # noqa: PLC0415

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
            **{"source": "clip", "onset": 0, "apex": 1},
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
    summary = process(catalog, store, recipe=recipe, workers=2, progress=False)
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
