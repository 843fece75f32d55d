"""The kernels on a GPU: rates by batch size, against one core, OpenCV and cuCIM.

    python benchmarks/gpu/rates.py                          # the tables
    python benchmarks/gpu/rates.py --batches 512 --json f   # one batch size; the numbers to a file

Data is on the GPU before the clock starts and stays there; the clock is the GPU's own (events
around a call), the median of its calls counts. The bytes of a call are those of the arrays that
its kernels and transforms take, each array once for each launch, which is what must move at least
where no cache holds it; their share is of what a copy of 1 GiB reaches on this GPU. A core runs
the CPU kernels on this machine, pinned; the largest difference to them is shown.
Without a GPU the command says so and ends with status 2.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

from apexflow.bench import cases, timing
from apexflow.bench.run import cpu_name
from apexflow.bench.table import as_table
from apexflow.kernels import Registration, TemplateMatcher, encode_hsv, farneback, tvl1
from apexflow.kernels.crop.gpu import warp_crops
from apexflow.kernels.encode import gpu as encode_gpu
from apexflow.kernels.flow_farneback import arguments as farneback_arguments
from apexflow.kernels.flow_farneback import gpu as farneback_gpu
from apexflow.kernels.flow_tvl1 import arguments as tvl1_arguments
from apexflow.kernels.flow_tvl1 import gpu as tvl1_gpu
from apexflow.kernels.gpu import CudaKernel, Device, GpuUnavailable, cuda_device

BATCHES = (1, 8, 64, 512)
SECONDS = 0.5  # of calls at least, for a median

Call = Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Work:
    """One kernel at one size.

    Attributes
    ----------
    kernel, size, unit : str
        What people read.
    distinct : int
        Number of different inputs; a batch repeats them.
    start : callable
        From a device and the numbers of the inputs of a batch: puts them there and returns the
        call to time.
    core : callable
        From the number of an input: what the CPU kernel, or OpenCV's chain where that is the CPU
        form, gives.
    difference : callable
        From the results of a batch, on the host, and of the core, how far apart they are.
    opencv, cucim : callable, optional
        One piece of work; the second gets CuPy and returns the call to time, on one input.
    """

    kernel: str
    size: str
    unit: str
    distinct: int
    start: Callable[[Device, Sequence[int]], Call]
    core: Callable[[int], Any]
    difference: Callable[[Any, Sequence[Any]], float]
    opencv: Call | None = None
    cucim: Callable[[Any], Call] | None = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    try:
        device = cuda_device()
    except GpuUnavailable as error:
        print(f"benchmarks/gpu/rates.py needs a GPU: {error}", file=sys.stderr)
        sys.exit(2)
    results = measure(device, batches=arguments.batches, progress=_say)
    print(as_text(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


def measure(
    device: Device,
    *,
    batches: Sequence[int] = BATCHES,
    smoke: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Return machine, rates and kernels, as plain numbers and texts.

    A smoke run has tiny sizes: it shows that everything runs, its times mean nothing.
    """
    clock = Clock(device, least=0 if smoke else SECONDS)
    copied = clock.copied_bytes_per_s(1 << (16 if smoke else 30))
    rates, kernels = [], []
    for work in works(smoke=smoke):
        progress(f"{work.kernel}, one core")
        core, others = _one_core(work, clock, rounds=1 if smoke else 5)
        for count in batches:
            progress(f"{work.kernel}, {count}")
            numbers = [i % work.distinct for i in range(count)]
            seconds = clock.seconds(work.start(device, numbers))
            traced = Traced(device)
            found = _on_host(work.start(traced, numbers)(), device)
            rate = count / seconds
            rates.append(
                {
                    "kernel": work.kernel,
                    "size": work.size,
                    "unit": work.unit,
                    "batch": count,
                    "per_s": rate,
                    "core_per_s": core["per_s"],
                    "others_per_s": others,
                    "bytes_per_s": sum(launch.bytes for launch in traced.launches) / seconds,
                    "difference": work.difference(found, core["found"]),
                }
            )
        kernels += [{"work": work.kernel} | row for row in traced.by_kernel()]
    return {"machine": _machine(device), "copy": copied, "rates": rates, "kernels": kernels}


def _one_core(work: Work, clock: Clock, rounds: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Return results and rate of the CPU kernel, and the rates of the other libraries."""
    with timing.cores(1):
        found = [work.core(i) for i in range(work.distinct)]  # compiles, too
        timed: dict[str, Call] = {"core": lambda: [work.core(i) for i in range(work.distinct)]}
        if work.opencv is not None:
            timed["OpenCV"] = work.opencv
        spent = timing.interleave(timed, rounds)
    others = {"OpenCV": 1e3 / spent["OpenCV"]} if "OpenCV" in spent else {}
    if work.cucim is not None:
        with suppress(ImportError):
            others["cuCIM"] = 1 / clock.seconds(work.cucim(clock.xp))
    return {"found": found, "per_s": 1e3 * work.distinct / spent["core"]}, others


# What is measured.


def works(*, smoke: bool = False) -> Iterator[Work]:
    """Yield the kernels at the sizes of a face; tiny ones for a smoke run."""
    scale, side, frames = (0.12, 48, 2) if smoke else (1.0, 224, 16)
    clip = np.stack(cases.clip(scale, frames))
    pairs = [cases.pair(side, seed) for seed in range(2 if smoke else 8)]
    yield template_work(clip, round(40 * scale))
    yield registration_work(clip, round(40 * scale))
    yield crop_work(clip, side)
    yield farneback_work(pairs)
    yield tvl1_work(pairs, **({"nscales": 1, "warps": 1} if smoke else {}))
    yield hsv_work(side)


def template_work(clip: Any, margin: int) -> Work:
    """Search a template within a margin, over the frames of a clip."""
    height, width = clip.shape[1] - 2 * margin, clip.shape[2] - 2 * margin
    template = clip[0, margin : margin + height, margin : margin + width].copy()
    matcher = TemplateMatcher(template)

    def start(device: Device, numbers: Sequence[int]) -> Call:
        on_gpu, regions = matcher.on(device), device.xp.asarray(clip[numbers][..., np.newaxis])
        return lambda: on_gpu.match_all(regions)

    def opencv() -> Any:
        return cv2.minMaxLoc(cv2.matchTemplate(clip[-1], template, cv2.TM_CCOEFF_NORMED))

    def cucim(xp: Any) -> Call:
        feature = import_module("cucim.skimage.feature")
        region, patch = xp.asarray(clip[-1]), xp.asarray(template)
        return lambda: feature.match_template(region, patch).argmax()

    return Work(
        kernel="template search",
        size=f"{height} x {width} in {clip.shape[1]} x {clip.shape[2]}",
        unit="frames",
        distinct=len(clip),
        start=start,
        core=lambda i: matcher.match(clip[i]),
        difference=_largest,
        opencv=opencv,
        cucim=cucim,
    )


def registration_work(clip: Any, margin: int) -> Work:
    """Locate a template to parts of a pixel, from a pixel beside it."""
    height, width = clip.shape[1] - 2 * margin, clip.shape[2] - 2 * margin
    template = clip[0, margin : margin + height, margin : margin + width].copy()
    start_at = (margin + (width - 1) / 2 + 1, margin + (height - 1) / 2)
    registration = Registration(template, model="similarity")

    def start(device: Device, numbers: Sequence[int]) -> Call:
        on_gpu, images = registration.on(device), device.xp.asarray(clip[numbers])
        starts = device.xp.asarray(np.array([start_at] * len(numbers)))
        return lambda: on_gpu.locate_all(images, starts)

    return Work(
        kernel="registration, similarity",
        size=f"{height} x {width}",
        unit="frames",
        distinct=len(clip),
        start=start,
        core=lambda i: registration.locate(clip[i], start_at),
        difference=_largest,
    )


def crop_work(clip: Any, side: int) -> Work:
    """Cut a square out of a slightly turned frame; the CPU form is OpenCV's chain."""
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), 2.0, 1.0)
    matrix *= 0.9 * min(clip.shape[1:]) / side
    pixels = int(np.floor((np.hypot(*matrix[:, 0]) + 0.5) / 2)) * 2 + 1
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

    def core(i: int) -> Any:
        mean = cv2.blur(clip[i], (pixels, pixels), borderType=cv2.BORDER_REPLICATE)
        size = (side, side)
        return cv2.warpAffine(mean, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def start(device: Device, numbers: Sequence[int]) -> Call:
        frames = device.xp.asarray(clip[numbers])
        which, matrices = np.arange(len(numbers)), np.stack([matrix] * len(numbers))
        size = (side, side)
        return lambda: warp_crops(frames, which, matrices, size, "area", device=device)

    return Work(
        kernel="crop",
        size=f"{side} x {side}",
        unit="crops",
        distinct=len(clip),
        start=start,
        core=core,
        difference=_largest,
    )


def farneback_work(pairs: Sequence[Any]) -> Work:
    """Farnebäck's flow of pairs that share no frame."""
    side = len(pairs[0][0])
    expansion = farneback_arguments.check_expansion(0.5, 3, 5, 1.2)
    averaging = farneback_arguments.check_averaging(15, 3, 0)

    def start(device: Device, numbers: Sequence[int]) -> Call:
        first, second = _pairs_on(device, pairs, numbers)
        return lambda: farneback_gpu.farneback(first, second, expansion, averaging, device=device)

    return Work(
        kernel="Farnebäck",
        size=f"{side} x {side}",
        unit="pairs",
        distinct=len(pairs),
        start=start,
        core=lambda i: farneback(*pairs[i], **cases.FARNEBACK),
        difference=_largest,
        opencv=lambda: cases.opencv_farneback(*pairs[0]),
    )


def tvl1_work(pairs: Sequence[Any], *, nscales: int = 5, warps: int = 5) -> Work:
    """TV-L1 with OpenCV's parameters; the difference is the mean one, since it is chaotic."""
    side = len(pairs[0][0])
    pyramid = tvl1_arguments.check_pyramid(nscales, 0.8)
    solver = tvl1_arguments.check_solver(
        tau=0.25,
        lambda_=0.15,
        theta=0.3,
        warps=warps,
        epsilon=0.01,
        inner_iterations=30,
        outer_iterations=10,
        gamma=0.0,
        cubic=-0.75,
        median_filtering=5,
    )

    def start(device: Device, numbers: Sequence[int]) -> Call:
        first, second = _pairs_on(device, pairs, numbers)
        count = len(numbers)
        return lambda: tvl1_gpu.tvl1(first, second, None, count, pyramid, solver, device=device)

    def cucim(xp: Any) -> Call:
        registration = import_module("cucim.skimage.registration")
        first, second = (xp.asarray(image, dtype=np.float32) / 255 for image in pairs[0])
        return lambda: registration.optical_flow_tvl1(first, second, dtype=np.float32)

    def mean(flows: Any, found: Sequence[Any]) -> float:
        apart = zip(flows, found, strict=False)
        return max(cases.mean_end_point_difference(mine, core) for mine, core in apart)

    return Work(
        kernel="TV-L1",
        size=f"{side} x {side}",
        unit="pairs",
        distinct=len(pairs),
        start=start,
        core=lambda i: tvl1(*pairs[i], nscales=nscales, warps=warps),
        difference=mean,
        opencv=lambda: cases.opencv_tvl1(*pairs[0], nscales, warps),
        cucim=cucim,
    )


def hsv_work(side: int) -> Work:
    """The map of the default recipe."""
    flows = np.stack([cases.smooth_flow(side) * np.float32(i + 1) for i in range(8)])

    def start(device: Device, numbers: Sequence[int]) -> Call:
        there = device.xp.asarray(flows[numbers])
        return lambda: encode_gpu.encode_hsv(there, (28, 28), 0.0, device=device)

    return Work(
        kernel="HSV map to 28 x 28",
        size=f"{side} x {side}",
        unit="maps",
        distinct=len(flows),
        start=start,
        core=lambda i: encode_hsv(flows[i]),
        difference=_largest,
        opencv=lambda: cases.opencv_hsv(flows[0]),
    )


def _pairs_on(device: Device, pairs: Sequence[Any], numbers: Sequence[int]) -> tuple[Any, Any]:
    first, second = (np.stack([pairs[i][which] for i in numbers]) for which in (0, 1))
    return device.xp.asarray(first), device.xp.asarray(second)


def _on_host(found: Any, device: Device) -> Any:
    """Return the results of a batch as one row each, from arrays of rows or of columns."""
    if isinstance(found, tuple):
        return np.stack([device.to_host(column) for column in found], axis=1)
    return device.to_host(found)


def _largest(rows: Any, found: Sequence[Any]) -> float:
    """Return the largest difference between rows and what the core found, over both's length."""
    both = zip(rows, found, strict=False)
    return max(float(np.abs(np.subtract(row, core, dtype=np.float64)).max()) for row, core in both)


# How it is measured.


class Clock:
    """Times calls on a device: by its events on a GPU, by this machine's clock elsewhere."""

    def __init__(self, device: Device, *, least: float) -> None:
        self.xp = device.xp
        self._least = least
        self._on_gpu = hasattr(device.xp, "cuda")

    def seconds(self, call: Call) -> float:
        """Return the median of warm calls."""
        for _ in range(2 if self._least else 0):
            call()
        spent: list[float] = []
        while not spent or (sum(spent) < self._least and len(spent) < 1000):
            spent.append(self._once(call))
        return median(spent)

    def copied_bytes_per_s(self, size: int) -> float:
        """Return what a copy on the device reads and writes."""
        source = self.xp.arange(size // 8, dtype=np.float64)
        target = self.xp.empty_like(source)

        def copy() -> None:
            target[...] = source

        return 2 * size / self.seconds(copy)

    def _once(self, call: Call) -> float:
        if not self._on_gpu:
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        before, after = (self.xp.cuda.Event() for _ in range(2))
        before.record()
        call()
        after.record()
        after.synchronize()
        return float(self.xp.cuda.get_elapsed_time(before, after)) / 1e3


@dataclass
class Launch:
    """One launch that `Traced` saw."""

    name: str
    bytes: int
    threads: int = 0
    shared_bytes: int = 0
    kernel: Any = None
    events: list[Any] = field(default_factory=list)


class Traced:
    """A device that notes what each launch takes, and how long, for a table of kernels."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.xp = _TracedModule(device.xp, self)
        self.launches: list[Launch] = []

    def kernel(self, source: str, name: str) -> Callable[..., None]:
        kernel = self._device.kernel(source, name)

        def start(grid: Any, block: Any, args: Any, *, shared_bytes: int = 0) -> None:
            moved = sum(getattr(arg, "nbytes", 0) for arg in args if getattr(arg, "ndim", 0))
            launch = Launch(f"{source}: {name}", moved, int(np.prod(block)), shared_bytes, kernel)
            self.note(launch, lambda: kernel(grid, block, args, shared_bytes=shared_bytes))

        return start

    def free_bytes(self) -> int:
        return self._device.free_bytes()

    def to_host(self, array: Any) -> Any:
        return self._device.to_host(array)

    def note(self, launch: Launch, call: Call) -> Any:
        launch.events = [self._event()]
        result = call()
        launch.events.append(self._event())
        self.launches.append(launch)
        return result

    def by_kernel(self) -> list[dict[str, Any]]:
        """Return what all launches of each kernel took together, the longest first."""
        rows: dict[str, dict[str, Any]] = {}
        for launch in self.launches:
            row = rows.setdefault(
                launch.name,
                {"kernel": launch.name, "launches": 0, "bytes": 0, "ms": 0.0}
                | _needs(launch, self._device.xp),
            )
            row["launches"] += 1
            row["bytes"] += launch.bytes
            row["ms"] += self._ms(*launch.events)
        return sorted(rows.values(), key=lambda row: -row["ms"])

    def _event(self) -> Any:
        cuda = getattr(self._device.xp, "cuda", None)
        if cuda is None:
            return time.perf_counter()
        event = cuda.Event()
        event.record()
        return event

    def _ms(self, before: Any, after: Any) -> float:
        cuda = getattr(self._device.xp, "cuda", None)
        if cuda is None:
            return float(1e3 * (after - before))
        after.synchronize()
        return float(cuda.get_elapsed_time(before, after))


class _TracedModule:
    """An array module whose Fourier transforms are noted; two dimensions are two passes."""

    def __init__(self, module: Any, traced: Traced) -> None:
        self._module = module
        self._traced = traced

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        if name == "fft":
            return _TracedModule(value, self._traced)
        if self._module.__name__.endswith(".fft"):
            return lambda *args, **options: self._transform(name, value, *args, **options)
        return value

    def _transform(self, name: str, function: Any, array: Any, *args: Any, **options: Any) -> Any:
        launch = Launch(f"fft: {name}", 0)
        result = self._traced.note(launch, lambda: function(array, *args, **options))
        launch.bytes = 2 * (array.nbytes + result.nbytes)
        return result


def _needs(launch: Launch, xp: Any) -> dict[str, Any]:
    """Return what a kernel takes of a multiprocessor, and how many of its threads can run."""
    if not isinstance(launch.kernel, CudaKernel):
        return {}
    function = launch.kernel.function
    blocks = xp.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(
        function.kernel.ptr, launch.threads, launch.shared_bytes
    )
    most = xp.cuda.Device().attributes["MaxThreadsPerMultiProcessor"]
    return {
        "registers": function.num_regs,
        "shared_bytes": function.shared_size_bytes + launch.shared_bytes,
        "local_bytes": function.local_size_bytes,
        "threads": launch.threads,
        "occupancy": blocks * launch.threads / most,
    }


def _machine(device: Device) -> dict[str, str]:
    machine = {"cpu": cpu_name(), "python": platform.python_version()}
    for name in ("apexflow", "numpy", "numba", "cupy-cuda13x", "cupy-cuda12x", "cucim-cu13"):
        try:
            machine[name] = version(name)
        except PackageNotFoundError:
            continue
    machine["opencv"] = cv2.__version__
    if hasattr(device.xp, "cuda"):
        runtime = device.xp.cuda.runtime
        properties = runtime.getDeviceProperties(device.xp.cuda.Device().id)
        machine["gpu"] = properties["name"].decode()
        machine["CUDA of the driver"] = str(runtime.driverGetVersion())
        machine["CUDA runtime"] = str(runtime.runtimeGetVersion())
        machine["driver"] = _driver()
    return machine


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"


# What is shown.


def as_text(results: dict[str, Any]) -> str:
    """Return the results of `measure` as Markdown."""
    machine = ", ".join(f"{name} {value}" for name, value in results["machine"].items())
    return "\n\n".join(
        [
            "# The kernels on a GPU",
            f"`python benchmarks/gpu/rates.py` prints these tables again. {machine}. "
            f"A copy on the GPU moves {results['copy'] / 1e9:.0f} GB/s.",
            _rates(results["rates"], results["copy"]),
            "Kernels of the largest batch, with events around each, so that launches do not "
            "overlap:",
            _kernels(results["kernels"], results["copy"]),
        ]
    )


def _rates(rows: Sequence[dict[str, Any]], copied: float) -> str:
    head = ("kernel", "size", "batch", "per s", "x core", "x OpenCV", "x cuCIM", "GB/s", "of copy")
    cells = [
        (
            row["kernel"],
            row["size"],
            str(row["batch"]),
            f"{row['per_s']:,.{0 if row['per_s'] > 99 else 1}f} {row['unit']}",
            f"{row['per_s'] / row['core_per_s']:.1f}",
            *(_ratio(row["per_s"], row["others_per_s"].get(name)) for name in ("OpenCV", "cuCIM")),
            f"{row['bytes_per_s'] / 1e9:.0f}",
            f"{row['bytes_per_s'] / copied:.0%}",
            f"{row['difference']:.1g}",
        )
        for row in rows
    ]
    return as_table((*head, "difference"), cells)


def _ratio(rate: float, other: float | None) -> str:
    return "" if other is None else f"{rate / other:.1f}"


def _kernels(rows: Sequence[dict[str, Any]], copied: float) -> str:
    head = ("work", "kernel", "launches", "ms", "GB/s", "of copy")
    needs = {
        "threads": "threads",
        "registers": "registers",
        "shared_bytes": "shared, bytes",
        "local_bytes": "local, bytes",
    }
    cells = []
    for row in rows:
        rate = row["bytes"] / max(row["ms"], 1e-9) * 1e3
        cells.append(
            (
                row["work"],
                row["kernel"],
                str(row["launches"]),
                f"{row['ms']:.3f}",
                f"{rate / 1e9:.0f}",
                f"{rate / copied:.0%}",
                *(str(row.get(key, "")) for key in needs),
                f"{row['occupancy']:.0%}" if "occupancy" in row else "",
            )
        )
    return as_table((*head, *needs.values(), "occupancy"), cells)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main()
