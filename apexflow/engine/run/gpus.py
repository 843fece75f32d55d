"""The GPUs of this machine, counted without CuPy where there is none, and dealt to workers."""

from __future__ import annotations

import ctypes
import logging
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from apexflow.engine.clip.backend import Backend
from apexflow.engine.clip.gpu_decode import DECODER
from apexflow.errors import ApexflowError

logger = logging.getLogger(__name__)

RESOURCE = "GPU"
"""The Dask resource of a worker that was given a GPU, or a part of one (0.25: a quarter)."""

DEFAULT = "APEXFLOW_GPUS"
"""The environment variable that says what "auto" is."""

VISIBLE = "CUDA_VISIBLE_DEVICES"
CUDA = "apexflow.engine.clip.cuda:Cuda"

_NO_CUPY = "CuPy is not installed: pip install 'apexflow[gpu]'"


@dataclass(frozen=True, slots=True)
class GpuOptions:
    """How a worker uses the GPU that it was given.

    Attributes
    ----------
    gpu_decode : bool
        Whether the GPU decodes JPEG files.
    backend : str
        ``module:class`` of the backend.
    """

    gpu_decode: bool = False
    backend: str = CUDA


@dataclass(frozen=True, slots=True)
class GpuShare:
    """A worker's part of a GPU of this machine.

    Attributes
    ----------
    visible : str
        What `CUDA_VISIBLE_DEVICES` is in that worker.
    share : float
        The part of the GPU's memory that the worker may take.
    """

    visible: str
    share: float


def open_gpu(options: GpuOptions, share: float) -> Backend:
    """Open the first GPU that this process sees; `GpuUnavailable` when there is none."""
    module, _, name = options.backend.partition(":")
    backend: Backend = getattr(import_module(module), name)(
        share=share, gpu_decode=options.gpu_decode
    )
    return backend


def share_of_gpu(worker: Any) -> float:
    """Return the part of a GPU that a Dask worker says it has; 0 where it has none."""
    return float(worker.state.total_resources.get(RESOURCE, 0))


def deal_gpus(gpus: Sequence[str], workers: int) -> list[GpuShare | None]:
    """Deal GPUs out over workers in turn, several workers to a GPU; None where there is no GPU."""
    if not gpus:
        return [None] * workers
    dealt = [gpus[i % len(gpus)] for i in range(workers)]
    on_each = Counter(dealt)
    return [GpuShare(name, 1 / on_each[name]) for name in dealt]


def check_gpus(gpus: str | int) -> int | None:
    """Return the number of GPUs asked for; None for all that are there ("auto").

    What "auto" means may be said by the environment (`DEFAULT`).
    """
    if gpus == "auto":
        gpus = os.environ.get(DEFAULT, "auto")
    if gpus == "auto":
        return None
    count = -1
    if isinstance(gpus, str) and gpus.isdecimal():
        count = int(gpus)
    elif isinstance(gpus, int) and not isinstance(gpus, bool):
        count = gpus
    if count < 0:
        raise ApexflowError(f"gpus must be 'auto' or a number from 0 up, not {gpus!r}")
    return count


def find_gpus(gpus: str | int) -> tuple[str, ...]:
    """Return the names, for `CUDA_VISIBLE_DEVICES`, of the GPUs of this machine that a run takes.

    Parameters
    ----------
    gpus : "auto" or int
        All GPUs that can be used, or that many.

    Raises
    ------
    ApexflowError
        When more are asked for than there are.
    """
    wanted = check_gpus(gpus)
    if wanted == 0:
        return ()
    there = _count()
    reason = _unusable() if there else ""
    if wanted is None:
        if reason:
            logger.warning("%d GPU%s not used: %s", there, " is" if there == 1 else "s are", reason)
        return () if reason else _names(there)
    if there < wanted or reason:
        raise ApexflowError(
            f"gpus is {wanted}, and "
            + (reason if there >= wanted else _too_few(there))
            + "; take gpus 'auto' to use what is there, 0 for the CPU"
        )
    return _names(wanted)


def check_decoder(gpus: Sequence[str]) -> None:
    """See that there are GPUs, and the library with which they decode JPEG files.

    Raises `ApexflowError` when not.
    """
    if not gpus:
        raise ApexflowError("gpu_decode is asked for, and this run has no GPU to decode on")
    if not decoder_there():
        raise ApexflowError("gpu_decode needs nvImageCodec: pip install 'apexflow[gpu,gpu-decode]'")


def decoder_there() -> bool:
    """Whether nvImageCodec is installed."""
    package, _, _ = DECODER.partition(".")
    return find_spec(package) is not None and find_spec(DECODER) is not None


def _too_few(there: int) -> str:
    visible = os.environ.get(VISIBLE)
    limit = "" if visible is None else f" ({VISIBLE} is {visible!r})"
    return f"this machine has {there or 'no'} GPU{'s' * (there > 1)}{limit}"


def _names(count: int) -> tuple[str, ...]:
    """Return the first GPUs, by the names that they have in this process's environment."""
    visible = os.environ.get(VISIBLE, "").strip()
    names = [name.strip() for name in visible.split(",")] if visible else map(str, range(count))
    return tuple(list(names)[:count])


def _unusable() -> str:
    """Return why CuPy cannot use the GPUs; empty when it can."""
    if find_spec("cupy") is None:
        return _NO_CUPY
    import cupy

    return "" if cupy.is_available() else "CuPy finds none that it can use (driver too old?)"


def _count() -> int:
    """Ask the driver how many GPUs this process may see; 0 without a driver."""
    count = ctypes.c_int(0)
    with suppress(OSError, AttributeError):
        driver = ctypes.CDLL("libcuda.so.1")
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0
