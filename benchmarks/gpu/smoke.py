"""Every CUDA source through CuPy's compiler, and every kernel once against the CPU's.

    python benchmarks/gpu/smoke.py

Prints what each kernel takes of a multiprocessor, and for each operation its largest difference
to the CPU kernel. A failure is printed and counted; the exit status is 1 when there is one, 2
without a GPU.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import cv2
import numpy as np

from apexflow import kernels
from apexflow.kernels.encode import ENCODINGS
from apexflow.kernels.gpu import GpuUnavailable, cuda_device, source_text, sources, to_host

Pair = tuple[Any, Any]
MOST_LOCAL_BYTES = 64  # of a thread: more are spilt registers


def main() -> int:
    try:
        device = cuda_device()
    except GpuUnavailable as error:
        print(f"benchmarks/gpu/smoke.py needs a GPU: {error}", file=sys.stderr)
        return 2
    failures = 0
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for source, seconds, found in pool.map(compile_source, sources()):
            print(f"{source}: compiled in {seconds:.1f} s")
            for name, registers, shared, local in found:
                spilt = "  SPILT" * (local > MOST_LOCAL_BYTES)
                print(f"  {name}: {registers} registers, {shared} B shared, {local} B local{spilt}")
    for name, compare, most in comparisons(device.xp):
        start = time.perf_counter()
        try:
            difference = compare()
        except Exception as error:  # whatever a GPU raises is the finding
            print(f"{name}: FAILED {type(error).__name__}: {error}")
            failures += 1
            continue
        verdict = "ok" if difference <= most else "TOO LARGE"
        failures += difference > most
        seconds = time.perf_counter() - start
        print(f"{name}: {difference:.2g} (at most {most:g}) {verdict}, {seconds:.1f} s")
    return int(failures > 0)


def compile_source(source: str) -> tuple[str, float, list[tuple[str, int, int, int]]]:
    """Return what the kernels of a source take: registers, shared and local bytes."""
    from apexflow.kernels.gpu import _module
    from tests.kernels.cuda.build import kernel_names

    start = time.perf_counter()
    module = _module(source)
    found = []
    for name in kernel_names(source_text(source)):
        kernel = module.get_function(name)
        found.append((name, kernel.num_regs, kernel.shared_size_bytes, kernel.local_size_bytes))
    return source, time.perf_counter() - start, found


def comparisons(xp: Any) -> Iterator[tuple[str, Callable[[], float], float]]:
    """Yield the name of each operation, a function to its difference, and what is allowed."""
    first, second, wide = images()
    pair = xp.asarray(first), xp.asarray(second)

    def largest(on_gpu: Any, on_cpu: Any) -> float:
        return float(np.abs(to_host(on_gpu).astype(float) - on_cpu).max())

    def flows(compute: Callable[..., Any]) -> Callable[[], float]:
        return lambda: largest(compute(*pair), compute(first, second))

    yield "Farnebäck, px", flows(kernels.farneback), 1e-3
    yield "CLG, px", flows(kernels.clg), 1e-3
    yield "light, levels", lambda: largest(kernels.normalize_light(pair[0]), normal(first)), 1e-3

    def tvl1() -> float:
        found = to_host(kernels.tvl1(*pair)) - kernels.tvl1(first, second)
        return float(np.hypot(*np.moveaxis(found, -1, 0)).mean())

    yield "TV-L1, px in the mean", tvl1, 0.05

    def template() -> float:
        found = kernels.match_template(xp.asarray(wide), pair[0])
        return float(np.abs(np.subtract(found, kernels.match_template(wide, first))).max())

    yield "template search", template, 1e-9

    def registration() -> float:
        one = kernels.Registration(first, model="similarity")
        found = one.locate_all(xp.asarray(wide[None]), np.array([[121.0, 122.0]]))
        wanted = one.locate(wide, (121.0, 122.0))
        return max(abs(float(to_host(a)[0]) - b) for a, b in zip(found, wanted, strict=True))

    yield "registration, px", registration, 1e-3
    flow = np.ascontiguousarray(np.moveaxis(kernels.farneback(first, second), -1, 0))[None]
    for encoding in ENCODINGS:
        yield (
            f"map {encoding}, levels",
            lambda encoding=encoding: largest(
                kernels.make_maps(xp.asarray(flow), encoding), kernels.make_maps(flow, encoding)
            ),
            1,
        )


def images() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return two images 224x224 that differ by (1, 2) px, and the one that both are cut from."""
    noise = np.random.default_rng(0).integers(0, 256, (260, 260)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    wide = cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return wide[10:234, 10:234].copy(), wide[11:235, 12:236].copy(), wide


def normal(image: np.ndarray) -> np.ndarray:
    return kernels.normalize_light(image)


if __name__ == "__main__":
    sys.exit(main())
