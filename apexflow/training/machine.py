"""Where training runs: device, precision, threads."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from apexflow.errors import ApexflowError


@dataclass(frozen=True, slots=True)
class Machine:
    """Where training runs; it changes speed, and rounding, but not what is computed.

    Attributes
    ----------
    device : torch.device
    mixed : bool
        Mixed precision, on a GPU alone.
    workers : int
        Processes that read what does not fit into memory.
    """

    device: torch.device
    mixed: bool = False
    workers: int = 0

    @property
    def name(self) -> str:
        """What the GPU or the CPU is called, as far as the system says."""
        on_gpu = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if on_gpu else _processor()


def find_machine(device: str, mixed: bool | None, workers: int) -> Machine:
    """Return where to train; `ApexflowError` when there is no such device."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ApexflowError(f"device {device}: {str(error).splitlines()[0]}") from None
    on_gpu = chosen.type == "cuda"
    return Machine(chosen, on_gpu if mixed is None else mixed and on_gpu, workers)


@contextmanager
def deterministic(seed: int, device: torch.device, threads: int = 1) -> Iterator[None]:
    """Seed torch, fix its threads and a GPU's kernels; leave torch as it was afterwards."""
    on_gpu = device.type == "cuda"
    before_threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.manual_seed(seed)
        # Sums are split over threads: another number of them rounds otherwise.
        torch.set_num_threads(threads)
        try:
            with _repeatable_kernels() if on_gpu else nullcontext():
                yield
        finally:
            torch.set_num_threads(before_threads)


@contextmanager
def _repeatable_kernels() -> Iterator[None]:
    """Ask for repeatable GPU kernels; the CPU repeats itself, and asking it loads a compiler."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    tf32 = torch.backends.cudnn.allow_tf32
    # cuBLAS repeats its results only with a fixed workspace.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.backends.cudnn.allow_tf32 = tf32


def precision(machine: Machine) -> torch.autocast:
    """Return the context in which a network computes."""
    dtype = torch.float16 if is_scaled(machine) else torch.bfloat16
    return torch.autocast(machine.device.type, dtype=dtype, enabled=machine.mixed)


def is_scaled(machine: Machine) -> bool:
    """Whether mixed precision is float16, which needs its gradients scaled."""
    return machine.mixed and not torch.cuda.is_bf16_supported()


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1] if named else platform.machine()
