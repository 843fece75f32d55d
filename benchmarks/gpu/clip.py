"""One clip stage by stage on the CPU and on the GPU, then whole runs in the steady state.

    python benchmarks/gpu/clip.py one                # stages; how long the GPU is busy in a clip
    python benchmarks/gpu/clip.py runs               # clips/s of whole runs, start-up taken out
    python benchmarks/gpu/clip.py runs --workers 1 4 16 --root SAMM

A run is made twice, on a few clips and on several times as many: the difference of the two times
is the steady state. Without a GPU the command says so and ends with status 2.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from apexflow import Catalog, process, read_samm
from apexflow.engine.clip import CPU, process_clip
from apexflow.engine.clip.backend import Backend
from apexflow.engine.clip.cuda import Cuda
from apexflow.engine.recipe import Recipe
from apexflow.engine.run.gpus import decoder_there
from apexflow.kernels.gpu import GpuUnavailable
from apexflow.synthetic import write_samm

RECIPES = ("default", "sequence", "ststnet")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("one", "runs"))
    parser.add_argument("--root", type=Path, help="a SAMM folder; one is made otherwise")
    parser.add_argument("--workers", type=int, nargs="+", default=[os.cpu_count() or 1])
    parser.add_argument("--copies", type=int, default=8, help="times that each clip is processed")
    options = parser.parse_args()
    try:
        cuda = Cuda(share=0.5)
    except GpuUnavailable as error:
        print(f"benchmarks/gpu/clip.py needs a GPU: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        root = options.root or Path(folder) / "samm"
        if options.root is None:
            write_samm(root, subjects=4, clips=8, frames=75, size=(1088, 2040), faulty=False)
        clips = list(read_samm(root))
        if options.what == "one":
            one(clips[0], cuda)
        else:
            runs(clips, Path(folder), options.workers, options.copies)
    return 0


def one(clip, cuda: Cuda) -> None:
    backends: list[tuple[str, Backend]] = [("cpu", CPU), (cuda.name, cuda)]
    if decoder_there():
        backends.append((f"{cuda.name}, decoding", Cuda(share=0.3, gpu_decode=True)))
    for name in RECIPES:
        recipe = Recipe.load(name)
        for device, backend in backends:
            found = [process_clip(clip, recipe, backend) for _ in range(5)][2:]
            stages = found[0].seconds
            medians = {s: 1e3 * statistics.median(f.seconds[s] for f in found) for s in stages}
            shown = ", ".join(f"{stage} {spent:.1f}" for stage, spent in medians.items())
            print(f"{name} on {device} (computed by {found[-1].device}): ms {shown}")
        busy(lambda recipe=recipe: process_clip(clip, recipe, cuda), name)


def busy(work: Callable[[], object], name: str) -> None:
    """Print how long the GPU is busy within a clip, by torch's profiler, which sees CuPy's too."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        wall = time.perf_counter() - start
    rows = [(e.key, e.count, e.self_device_time_total / 1e3) for e in profiled.key_averages()]
    total = sum(spent for _, _, spent in rows)
    launches = sum(count for _, count, _ in rows)
    print(
        f"{name}: wall {1e3 * wall:.1f} ms, GPU busy {total:.1f} ms, {launches} launches and copies"
    )
    for kernel, count, spent in sorted(rows, key=lambda row: -row[2])[:12]:
        print(f"  {spent:8.3f} ms {count:5d} x {kernel[:80]}")


def runs(clips, folder: Path, workers: list[int], copies: int) -> None:
    many = [replace(clip, name=f"{clip.name}_{i}") for i in range(copies) for clip in clips]
    settings: list[tuple[str, dict[str, object]]] = [("cpu", {"gpus": 0}), ("GPU", {"gpus": 1})]
    if decoder_there():
        settings.append(("GPU, decoding", {"gpus": 1, "gpu_decode": True}))
    for count in workers:
        for name, options in settings:
            times, summaries = [], []
            for part in (many[: len(clips)], many):
                start = time.perf_counter()
                store = folder / f"{name}-{count}-{len(part)}.zarr"
                summaries.append(
                    process(Catalog(part), store, workers=count, progress=False, **options)
                )
                times.append(time.perf_counter() - start)
            steady = (len(many) - len(clips)) / (times[1] - times[0])
            print(
                f"{count} workers, {name}: {steady:.1f} clips/s (the first {len(clips)} clips in "
                f"{times[0]:.1f} s); computed by {summaries[1].devices}",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
