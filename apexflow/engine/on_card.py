"""A card as a worker opens it: the current CUDA card, through CuPy and torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from apexflow.engine.batched import compute_clip
from apexflow.engine.cards import DECODER
from apexflow.engine.encoded import EncodedFrames
from apexflow.engine.faces import Face, MtcnnDetector
from apexflow.engine.frames import Image
from apexflow.engine.prepared import PreparedClip
from apexflow.engine.process import ClipResult
from apexflow.engine.recipe import Recipe
from apexflow.errors import ClipError
from apexflow.kernels.gpu import cuda_device

if TYPE_CHECKING:
    from apexflow.engine.recipe import Face as FaceOptions

# In pixels of the image that the network sees. MTCNN on a card sums in another order; where the
# CPU itself changed the order, boxes differed by up to 2e-4 px. A coordinate this near to a whole
# number could be cut off to another one: there the CPU decides.
UNDECIDED = 0.005
# Of the memory that is free when the card is opened: torch and cuFFT need some beside CuPy.
_POOL_SHARE = 0.85


class CudaCard:
    """The first CUDA card that this process sees.

    Raises `GpuUnavailable` when there is none, or no CuPy.
    """

    def __init__(self) -> None:
        self._device = cuda_device()
        self._cupy = self._device.xp
        runtime = self._cupy.cuda.runtime
        self.name: str = runtime.getDeviceProperties(0)["name"].decode()
        pool = self._cupy.get_default_memory_pool()
        pool.set_limit(size=int(_POOL_SHARE * runtime.memGetInfo()[0]))
        self.broken = False

    def find_face(self, image: Image, options: FaceOptions) -> Face | None:
        """Return the face; None where the CPU has to decide."""
        detector = MtcnnDetector(options.min_face_size, options.image_side, device="cuda")
        try:
            with _exact_torch():
                face = detector.detect(image)
        except ClipError:  # that there is no face is for the CPU to say
            return None
        scale = max(1.0, max(image.shape[:2]) / options.image_side) if options.image_side else 1.0
        return None if near_whole(face, UNDECIDED * scale) else face

    def compute(self, prepared: PreparedClip, recipe: Recipe) -> ClipResult:
        """Align a clip, compute its flow and its maps."""
        try:
            # Most runs decode on the CPU, and need no nvImageCodec.
            decoder = self._decoder if isinstance(prepared.stack, EncodedFrames) else None
            return compute_clip(prepared, recipe, self._device, name=self.name, decoder=decoder)
        except Exception:
            self._look_whether_broken()
            raise

    @cached_property
    def _decoder(self) -> NvJpegDecoder:
        return NvJpegDecoder(self._cupy)

    def _look_whether_broken(self) -> None:
        """Find out whether an error in a kernel has ended this process's use of the card."""
        try:
            self._cupy.cuda.runtime.deviceSynchronize()
            # What a clip that did not fit has left behind is in the next one's way.
            self._cupy.get_default_memory_pool().free_all_blocks()
        except Exception:
            self.broken = True


class NvJpegDecoder:
    """NVIDIA's JPEG decoder on the current card, through nvImageCodec.

    Raises `ImportError` when that is not installed.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._codec = import_module(DECODER)
        # As libjpeg-turbo: chroma is interpolated, not repeated.
        self._decoder = self._codec.Decoder(options=":fancy_upsampling=1")

    def decode(self, files: Sequence[NDArray[np.uint8]], *, color: bool) -> list[Any | None]:
        """Return uint8 (h, w), or (h, w, 3) BGR, of each file; None of those it does not take."""
        spaces, orders = self._codec.ColorSpec, self._codec.SampleFormat
        params = self._codec.DecodeParams(
            color_spec=spaces.SRGB if color else spaces.GRAY,
            sample_format=orders.I_BGR if color else orders.I_Y,
        )
        streams = [self._parsed(file) for file in files]
        known = [stream for stream in streams if stream is not None]
        if not known:
            return [None] * len(files)
        current = self._cupy.cuda.get_current_stream().ptr
        found = iter(self._decoder.decode(known, params=params, cuda_stream=current))
        images = (None if stream is None else next(found) for stream in streams)
        return [None if image is None else self._array(image, color=color) for image in images]

    def _parsed(self, file: NDArray[np.uint8]) -> Any | None:
        """Return a file that nvImageCodec can read the header of; another would end the batch."""
        stream = self._codec.CodeStream(file)
        try:
            return stream if stream.height else None
        except RuntimeError:
            return None

    def _array(self, image: Any, *, color: bool) -> Any:
        array = self._cupy.asarray(image)
        return array if color else array.reshape(array.shape[:2])


def near_whole(face: Face, distance: float) -> bool:
    """Whether a corner of the box lies so near to a whole pixel that rounding may decide."""
    box = np.asarray(face.box)
    return bool((np.abs(box - box.round()) < distance).any())


@contextmanager
def _exact_torch() -> Iterator[None]:
    """Let torch compute in full float32, in the same order each time."""
    import torch

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic
    cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic = False, False, True
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.deterministic = before
