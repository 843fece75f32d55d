"""Frames that the GPU decodes from their JPEG files.

What its decoder does not take, and what is not a whole file, OpenCV decodes, as on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from apexflow.datasets.images import decode_image, is_whole, read_file
from apexflow.datasets.sources import FolderFrames
from apexflow.engine.clip.frames import ClipFrames
from apexflow.errors import ClipError
from apexflow.kernels.gpu import Device, in_batches

Array = Any
"""An array of a GPU."""

File = NDArray[np.uint8]
"""The bytes of an image file."""

DECODER = "nvidia.nvimgcodec"

MOST_BYTES = 256 << 20
"""The most that the files of one clip may hold together."""

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
# In frames: what a decoder holds of one beside the image itself (coefficients are 16 bits).
_COPIES_OF_A_FRAME = 5


class NotDecodedError(Exception):
    """A frame that the CPU has to look at: nothing here decodes it, or it has another size."""


class JpegDecoder(Protocol):
    """A decoder whose images lie on a GPU."""

    def decode(self, files: Sequence[File], *, color: bool) -> list[Array | None]:
        """Return uint8 (h, w), or (h, w, 3) BGR, of each file; None of those it does not take."""


def read_files(frames: ClipFrames) -> dict[int, File] | None:
    """Read the files of a clip's frames; None where not all are JPEG, or too large together.

    Raises `ClipError` for a file that cannot be read.
    """
    if not isinstance(frames.source, FolderFrames):
        return None
    files: dict[int, File] = {}
    left = MOST_BYTES
    with frames.clock("decode"):
        for number in frames.plan.numbers:
            content = read_file(frames.source.files[number])
            left -= len(content)
            if left < 0 or not content.startswith(_START):
                return None
            files[number] = np.frombuffer(content, np.uint8)
    return files


def decode_frames(
    files: Sequence[File],
    shape: tuple[int, ...],
    part: tuple[slice, slice],
    decoder: JpegDecoder,
    device: Device,
) -> Array:
    """Decode files on a GPU and return the part of each that is needed.

    Parameters
    ----------
    files : sequence of uint8 (bytes,)
    shape : (height, width) or (height, width, 3)
        What every frame must have.
    part : (rows, columns)
    decoder : JpegDecoder
    device : Device

    Returns
    -------
    uint8 (n, h, w) or (n, h, w, 3), on the GPU

    Raises
    ------
    NotDecodedError
        When a frame has another size, or nothing can decode it.
    MemoryError
        When one frame does not fit into the GPU's memory.
    """

    def decode(rows: slice) -> Array:
        images = _decode(files[rows], decoder, device, color=len(shape) == 3)
        for image in images:
            if image.shape != shape:
                raise NotDecodedError(f"a frame is {image.shape}, the template frame {shape}")
        return device.xp.stack([image[part] for image in images])

    each = _COPIES_OF_A_FRAME * math.prod(shape)
    return device.xp.concatenate(in_batches(decode, len(files), each, device))


def _decode(
    files: Sequence[File], decoder: JpegDecoder, device: Device, *, color: bool
) -> list[Array]:
    """Decode files on the GPU, and those on the host that its decoder does not take.

    Nor does it get a file that may be cut off, or is damaged, lest it fill up what is missing.
    """
    whole = [i for i, file in enumerate(files) if _ends(file) and is_whole(file)]
    taken = decoder.decode([files[i] for i in whole], color=color) if whole else []
    images = dict(zip(whole, taken, strict=True))
    for i, file in enumerate(files):
        if images.get(i) is None:
            images[i] = device.xp.asarray(_decode_on_host(file, color=color))
    return [images[i] for i in range(len(files))]


def _ends(file: File) -> bool:
    return file[-len(_END) :].tobytes() == _END


def _decode_on_host(file: File, *, color: bool) -> NDArray[np.uint8]:
    try:
        return decode_image("a frame", file, color=color)
    except ClipError as error:  # which the CPU will meet again, and name the file
        raise NotDecodedError(str(error)) from None


class NvJpegDecoder:
    """NVIDIA's JPEG decoder on the current GPU, through nvImageCodec.

    Raises `ImportError` when that is not installed.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._codec = codec = import_module(DECODER)
        # One backend, so that what it refuses is refused and no other decoder takes it in
        # silence; one thread, since a machine's workers share its cores.
        self._decoder = codec.Decoder(
            backends=[codec.Backend(codec.BackendKind.HYBRID_CPU_GPU)],
            max_num_cpu_threads=1,
            # As libjpeg-turbo: chroma is interpolated, not repeated.
            options=":fancy_upsampling=1",
        )

    def decode(self, files: Sequence[File], *, color: bool) -> list[Any | None]:
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

    def _parsed(self, file: File) -> Any | None:
        """Return a file that nvImageCodec can read the header of; another would end the batch."""
        stream = self._codec.CodeStream(file)
        try:
            return stream if stream.height else None
        except RuntimeError:
            return None

    def _array(self, image: Any, *, color: bool) -> Any:
        array = self._cupy.asarray(image)
        return array if color else array.reshape(array.shape[:2])
