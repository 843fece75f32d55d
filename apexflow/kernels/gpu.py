"""The seam between GPU implementations and a GPU: kernels by name, memory, and batches.

A GPU implementation is written against `Device`: array functions that NumPy and CuPy share, and
CUDA C kernels from the ``.cu`` file in its own folder. `cuda_device` gives the current GPU through
CuPy; the tests give a device whose kernels are the same sources built as C++, so that one is
checked without a GPU. Nothing here imports CuPy before a GPU is asked for.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

_FOLDER = Path(__file__).parent
_INCLUDE = re.compile(r'\s*#\s*include\s+"(?P<name>[^"]+)"\s*')
_Result = TypeVar("_Result")

OPTIONS = ("--std=c++17", "--fmad=false")
"""How NVRTC compiles. Without contraction each operation rounds as written, on a GPU as in
C++; a kernel that wants a fused multiply-add says `fmaf`."""

CUPY_OPTIONS = ("-ftz=true", "--device-as-default-execution-space")
"""What CuPy adds to every compilation: numbers below 2 ** -126 are 0 in single precision."""

_FREE_SHARE = 0.8  # of the free memory: the pool rounds sizes up, and cuFFT takes work areas
_MOST_OF_A_BATCH = 65535  # what a grid takes along its second and third axis
_UNASKED_SHARED_BYTES = 48 * 1024  # a kernel must ask for more dynamic shared memory than this


class GpuUnavailable(RuntimeError):  # noqa: N818 - what happened is the name
    """There is no CuPy, or no GPU that it can use."""


class Kernel(Protocol):
    """One ``extern "C" __global__`` function."""

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        *,
        shared_bytes: int = 0,
    ) -> None:
        """Start the kernel; arguments are arrays of the device and NumPy scalars of exact type."""


class Device(Protocol):
    """Where a GPU implementation runs."""

    xp: Any
    """The array module: CuPy on a GPU."""

    def kernel(self, source: str, name: str) -> Kernel:
        """Return a function of a source such as ``"encode/hsv.cu"``, compiled once."""

    def free_bytes(self) -> int:
        """Return how many bytes a batch may take now."""

    def to_host(self, array: Any) -> NDArray[Any]:
        """Return an array of the device as NumPy's; waits for it."""


def is_device_array(value: object) -> bool:
    """Whether a value is a CuPy array. Never imports CuPy: without it nothing is one."""
    array_type = getattr(sys.modules.get("cupy"), "ndarray", None)
    return array_type is not None and isinstance(value, array_type)


def on_device(**arrays: object) -> bool:
    """Whether the arrays are CuPy's; values that are not arrays do not count.

    Raises
    ------
    TypeError
        When some are NumPy's and some CuPy's: what is moved, and when, is the caller's choice.
    """
    there = [name for name, value in arrays.items() if is_device_array(value)]
    here = [name for name, value in arrays.items() if isinstance(value, np.ndarray)]
    here = [name for name in here if name not in there]
    if there and here:
        raise TypeError(f"{here[0]} must be a CuPy array, as {there[0]} is. Got a NumPy array.")
    return bool(there)


def to_host(array: Any) -> NDArray[Any]:
    """Return an array as NumPy's, wherever it is; waits for a GPU's."""
    return cuda_device().to_host(array) if is_device_array(array) else np.asarray(array)


def cuda_device() -> Device:
    """Return the current GPU, the same object each time: an implementation may keep tables by it.

    Raises
    ------
    GpuUnavailable
        When CuPy is not installed or finds no GPU.
    """
    try:
        import cupy
    except ImportError as error:
        raise GpuUnavailable("CuPy is not installed: pip install 'apexflow[gpu]'.") from error
    if not cupy.is_available():
        raise GpuUnavailable("CuPy finds no GPU that it can use.")
    return _card(cupy.cuda.Device().id)


def sources() -> tuple[str, ...]:
    """Return the names of all CUDA sources, relative to this folder."""
    return tuple(sorted(p.relative_to(_FOLDER).as_posix() for p in _FOLDER.glob("*/*.cu")))


@functools.cache
def source_text(source: str) -> str:
    """Return a CUDA source with the local headers that it includes put in place, each once.

    CuPy's cache of compiled kernels knows the text that it is given, and no header.
    """
    return "\n".join(_expanded(_FOLDER / source, set())) + "\n"


def _expanded(path: Path, seen: set[Path]) -> Iterator[str]:
    seen.add(path)
    name = path.relative_to(_FOLDER).as_posix()
    yield f'#line 1 "{name}"'
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        include = _INCLUDE.fullmatch(line)
        if include is None:
            yield line
            continue
        beside, shared = path.parent / include["name"], _FOLDER / include["name"]
        header = beside if beside.exists() else shared
        if header not in seen:
            yield from _expanded(header, seen)
        yield f'#line {number + 1} "{name}"'


def in_batches(
    function: Callable[[slice], _Result],
    count: int,
    bytes_each: int,
    device: Device,
    *,
    most: int = _MOST_OF_A_BATCH,
) -> list[_Result]:
    """Call ``function`` for slices that cover ``count`` items, and return its results in order.

    A batch that does not fit in memory is tried again in halves, and so are those after it;
    one item that does not fit raises `MemoryError`.

    Parameters
    ----------
    function : callable
        Takes a slice of the items; may be called again for a part of it after a failure.
    count : int
        Number of items.
    bytes_each : int
        Estimate of the memory that one item takes while ``function`` works.
    device : Device
        Whose free memory bounds the first batch.
    most : int
        Items of a batch, however much memory is free.
    """
    results: list[_Result] = []
    most = min(max(1, device.free_bytes() // max(1, bytes_each)), max(1, most))
    start = 0
    while start < count:
        stop = min(start + most, count)
        try:
            results.append(function(slice(start, stop)))
        except MemoryError:  # CuPy's own is a subclass
            if stop - start == 1:
                raise
            most = (stop - start) // 2
        else:
            start = stop
    return results


class _CudaDevice:
    """The current GPU, through CuPy."""

    def __init__(self) -> None:
        import cupy

        self.xp = cupy

    def kernel(self, source: str, name: str) -> Kernel:
        return _kernel(source, name)

    def free_bytes(self) -> int:
        pool = self.xp.get_default_memory_pool()
        free, _ = self.xp.cuda.runtime.memGetInfo()
        free += pool.free_bytes()
        if limit := pool.get_limit():
            free = min(free, limit - pool.used_bytes())
        return int(_FREE_SHARE * max(free, 0))

    def to_host(self, array: Any) -> NDArray[Any]:
        return np.asarray(self.xp.asnumpy(array))


class CudaKernel:
    """A kernel of a GPU.

    Attributes
    ----------
    function : cupy.RawKernel
        Knows what it takes of a multiprocessor.
    """

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        *,
        shared_bytes: int = 0,
    ) -> None:
        if shared_bytes > _UNASKED_SHARED_BYTES:
            self.function.max_dynamic_shared_size_bytes = shared_bytes
        self.function(grid, block, args, shared_mem=shared_bytes)


@functools.cache
def _card(number: int) -> Device:
    return _CudaDevice()


@functools.cache
def _module(source: str) -> Any:
    import cupy

    return cupy.RawModule(code=source_text(source), options=OPTIONS, backend="nvrtc")


@functools.cache
def _kernel(source: str, name: str) -> Kernel:
    return CudaKernel(_module(source).get_function(name))
