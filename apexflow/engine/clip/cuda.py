"""The steps of a clip on a GPU: CuPy's arrays, batches as large as its memory allows.

Every step takes and gives arrays of the host. A step that fails is done again on the CPU, so
that a GPU in trouble costs time and never a clip.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from apexflow.engine.clip.align import BeyondPartError
from apexflow.engine.clip.backend import CPU, Array, Pixels
from apexflow.engine.clip.frames import ClipFrames
from apexflow.engine.clip.gpu_decode import (
    JpegDecoder,
    NotDecodedError,
    NvJpegDecoder,
    decode_frames,
    read_files,
)
from apexflow.errors import ClipError
from apexflow.kernels.gpu import Device, cuda_device, in_batches

logger = logging.getLogger(__name__)

_Made = TypeVar("_Made")

FAILURES_IN_A_ROW = 3
# Of the memory that is free when the GPU is opened: cuFFT needs some beside CuPy.
_POOL_SHARE = 0.85
# Of DFTs: two sizes of faces, each there and back for whole batches and the last one.
_PLANS = 8
# What one batch may take by its step's reckoning: 160 frames as SAMM's are searched, of which a
# quarter, the decoded pixels, lies on the host.
_BATCH_BYTES = 256 << 20


class Cuda:
    """The current GPU, for the threads of one process in turn.

    A step that fails three times in a row, from clip to clip, ends the use of the GPU here.

    Parameters
    ----------
    share : float
        The part of the GPU's free memory that this process may take.
    gpu_decode : bool
        Whether the GPU decodes JPEG files, whose pixels are then not quite the CPU's.
    device : Device, optional
        The current CUDA device when not given.

    Attributes
    ----------
    broken : bool
        Whether an error has ended this process's use of the GPU, so that only another process
        can go on with it.
    complaints : list of str
        What a user has to know, until somebody has passed it on.

    Raises
    ------
    GpuUnavailable
        When there is no GPU, or no CuPy.
    """

    def __init__(
        self, *, share: float = 1.0, gpu_decode: bool = False, device: Device | None = None
    ) -> None:
        self.device = device or cuda_device()
        self.broken = False
        self.complaints: list[str] = []
        self._failures: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._gpu_decode = gpu_decode
        self._decoder: JpegDecoder | None = None
        self.name = self._open(share)

    def _open(self, share: float) -> str:
        """Bound this process's memory and return what the GPU is called."""
        cupy = self.device.xp
        runtime = cupy.cuda.runtime
        pool = cupy.get_default_memory_pool()
        pool.set_limit(size=int(share * _POOL_SHARE * runtime.memGetInfo()[0]))
        # CuPy keeps 16 plans without a bound on their memory.
        cupy.fft.config.get_plan_cache().set_size(_PLANS)
        return str(runtime.getDeviceProperties(0)["name"].decode())

    @property
    def usable(self) -> bool:
        return not self.broken and max(self._failures.values(), default=0) < FAILURES_IN_A_ROW

    def run(self, step: Callable[..., _Made], *inputs: Any) -> tuple[_Made, str]:
        if self.usable:
            with self._lock:
                try:
                    made = step(*inputs, self)
                except ClipError:
                    raise
                except (BeyondPartError, NotDecodedError) as error:
                    logger.info("left to the CPU: %s", error)
                except Exception as error:
                    self._count_failure(step, error)
                else:
                    self._failures.pop(step.__name__, None)
                    return made, self.name
        return CPU.run(step, *inputs)

    def _count_failure(self, step: Callable[..., Any], error: Exception) -> None:
        """Count a failure; say so when it is the last that this GPU may have here."""
        self._failures[step.__name__] += 1
        self.broken = self._is_broken()
        what = f"{type(error).__name__} in {step.__name__}: {error}"
        if self.broken:
            self.complaints.append(
                f"{self.name} is lost to this process, which is replaced: {what}"
            )
        elif not self.usable:
            self.complaints.append(
                f"{self.name} is given up after {FAILURES_IN_A_ROW} failures in a row; this worker "
                f"goes on with the CPU: {what}"
            )
        else:
            logger.info("%s: %s; the CPU does it again", self.name, what)

    def _is_broken(self) -> bool:
        """Whether an error in a kernel has ended this process's use of the GPU."""
        cupy = self.device.xp
        try:
            cupy.cuda.runtime.deviceSynchronize()
            # What a clip that did not fit has left behind is in the next one's way.
            cupy.get_default_memory_pool().free_all_blocks()
        except Exception:
            return True
        return False

    def pixels(self, frames: ClipFrames, part: tuple[slice, slice]) -> Pixels:
        files = read_files(frames) if self._gpu_decode else None
        if files is None:
            return UploadedPart(frames, part, self)
        if self._decoder is None:
            self._decoder = self._open_decoder()
        return DecodedPart(frames, files, part, self, self._decoder)

    def _open_decoder(self) -> JpegDecoder:
        return NvJpegDecoder(self.device.xp)

    def put(self, array: NDArray[Any]) -> Array:
        return self.device.xp.asarray(array)

    def batches(
        self, function: Callable[[slice], _Made], count: int, bytes_each: int
    ) -> list[_Made]:
        most = _BATCH_BYTES // max(1, bytes_each)
        return in_batches(function, count, bytes_each, self.device, most=most)


@dataclass(frozen=True, slots=True)
class UploadedPart:
    """Frames decoded on the CPU, of which only the part that is needed goes to the GPU."""

    frames: ClipFrames
    part: tuple[slice, slice]
    backend: Cuda
    decode_device: str = CPU.name

    @property
    def origin(self) -> tuple[int, int]:
        rows, columns = self.part
        return columns.start, rows.start

    def read(self, numbers: Sequence[int]) -> Array:
        return self.backend.put(np.stack([frame[self.part] for frame in self.frames.read(numbers)]))


@dataclass(frozen=True, slots=True)
class DecodedPart:
    """Frames that the GPU decodes; all of a clip's, so that only like pixels are compared."""

    frames: ClipFrames
    files: dict[int, NDArray[np.uint8]]
    part: tuple[slice, slice]
    backend: Cuda
    decoder: JpegDecoder
    decode_device: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "decode_device", self.backend.name)

    @property
    def origin(self) -> tuple[int, int]:
        rows, columns = self.part
        return columns.start, rows.start

    def read(self, numbers: Sequence[int]) -> Array:
        with self.frames.clock("decode"):
            return decode_frames(
                [self.files[number] for number in numbers],
                self.frames.template.shape,
                self.part,
                self.decoder,
                self.backend.device,
            )
