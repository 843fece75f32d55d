"""GPUs for the worker processes of tests: they compute on the CPU, and fail as they are told.

What a GPU does is in the environment, so that real worker processes know it: ``FAKE_GPU`` names
a trouble, ``FAKE_GPU_CLIP`` the only clip that has it, ``FAKE_GPU_FOLDER`` a folder.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from apexflow.datasets.sources import decode_image
from apexflow.engine.clip.align import align_frames
from apexflow.engine.clip.cuda import Cuda
from apexflow.engine.clip.gpu_decode import JpegDecoder
from apexflow.kernels import gpu
from apexflow.kernels.gpu import Device, GpuUnavailable

TROUBLE, CHOSEN, FOLDER = "FAKE_GPU", "FAKE_GPU_CLIP", "FAKE_GPU_FOLDER"
NAME = "Test GPU"


class HostDevice:
    """A device whose arrays are NumPy's, so that kernels compute on the CPU."""

    xp: Any = np

    def kernel(self, source: str, name: str) -> Any:
        raise NotImplementedError

    def free_bytes(self) -> int:
        return 1 << 30

    def to_host(self, array: Any) -> Any:
        return np.asarray(array)


class FakeCuda(Cuda):
    """The backend of a GPU with the CPU's kernels, batches of many frames, and troubles."""

    def __init__(self, *, share: float = 1.0, gpu_decode: bool = False) -> None:
        super().__init__(share=share, gpu_decode=gpu_decode, device=HostDevice())

    def _open(self, share: float) -> str:
        return NAME

    def _open_decoder(self) -> JpegDecoder:
        return OpenCvDecoder(self.device)

    def _is_broken(self) -> bool:
        return "breaks" in os.environ.get(TROUBLE, "")

    def run(self, step: Callable[..., Any], *inputs: Any) -> tuple[Any, str]:
        return super().run(self._troubled(step), *inputs)

    def _troubled(self, step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def troubled(*inputs: Any) -> Any:
            if step is align_frames and inputs[-1] is self:
                frames = inputs[0]
                name = next(iter(frames.source.files.values())).parent.name
                if os.environ.get(CHOSEN) in (None, "", name):
                    do_trouble(os.environ.get(TROUBLE, ""))
            return step(*inputs)

        return troubled


class UnavailableCuda:
    """The backend of a GPU that the worker cannot open."""

    def __init__(self, *, share: float, gpu_decode: bool) -> None:
        raise GpuUnavailable("CuPy finds no GPU that it can use.")


def do_trouble(kind: str) -> None:
    if kind.endswith(" once"):
        if not _first_time():
            return
        kind = kind.removesuffix(" once")
    if kind == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind in ("breaks", "fails"):
        raise RuntimeError("illegal memory access")
    if kind == "is full":
        raise MemoryError("out of memory")
    if kind == "hangs":
        time.sleep(1e6)


class ShimCuda(Cuda):
    """The backend of a GPU whose kernels are the CUDA sources as C++."""

    def __init__(
        self, *, share: float = 1.0, gpu_decode: bool = False, device: Device | None = None
    ) -> None:
        if device is None:
            from tests.kernels.cuda.build import ShimDevice

            device = ShimDevice(Path(os.environ[FOLDER]))
        strict = take_for_cupy(device, functools.partial(setattr, gpu, "_card"), sys.modules)
        super().__init__(share=share, gpu_decode=gpu_decode, device=strict)

    def _open(self, share: float) -> str:
        return NAME

    def _open_decoder(self) -> JpegDecoder:
        return OpenCvDecoder(self.device)

    def _is_broken(self) -> bool:
        return False


def take_for_cupy(
    device: Device, set_card: Callable[[Callable[[int], Device]], None], modules: Any
) -> Device:
    """Have arrays as strict as CuPy's taken for CuPy's, and a device for the GPU; return it."""
    from tests.kernels.cuda.strict_arrays import StrictArray, StrictDevice

    strict = StrictDevice(device)
    modules["cupy"] = SimpleNamespace(
        ndarray=StrictArray,
        is_available=lambda: True,
        cuda=SimpleNamespace(Device=lambda: SimpleNamespace(id=0)),
    )
    set_card(lambda number: strict)
    return strict


class OpenCvDecoder:
    """The CPU's decoder in the place of a GPU's."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.seen = 0

    def decode(self, files: Sequence[Any], *, color: bool) -> list[Any]:
        self.seen += len(files)
        images = (decode_image("a file", file, color=color) for file in files)
        return [self.device.xp.asarray(image) for image in images]


def _first_time() -> bool:
    try:
        (Path(os.environ[FOLDER]) / "happened").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
