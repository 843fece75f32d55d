"""Frames of a clip as their JPEG files have them, for a card that decodes them itself.

Only pixels of the same decoder are compared with each other: all frames of such a clip, the
template frame too, are the card's. What a card's decoder does not take, and what is no whole
file, OpenCV decodes, as it does on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from apexflow.engine.frames import FolderFrames, FrameSource, decode_image, read_file
from apexflow.errors import ClipError
from apexflow.kernels.gpu import Device, in_batches

Array = Any
"""An array of a device."""

MOST_BYTES = 256 << 20
"""The most that the files of one clip may hold together."""

_START, _END = b"\xff\xd8\xff", b"\xff\xd9"
# In frames: what a decoder holds of one beside the image itself (coefficients are 16 bits).
_COPIES_OF_A_FRAME = 5


class LeftToCpuError(Exception):
    """The CPU has to do a clip, though nothing is wrong with the card."""


class JpegDecoder(Protocol):
    """A decoder whose images lie on a device."""

    def decode(self, files: Sequence[NDArray[np.uint8]], *, color: bool) -> list[Array | None]:
        """Return uint8 (h, w), or (h, w, 3) BGR, of each file; None of those it does not take."""


@dataclass(frozen=True, slots=True)
class EncodedFrames:
    """The files of a clip's frames, end to end in one block.

    Attributes
    ----------
    data : uint8 (bytes,)
    ends : tuple of int
        Where each file ends.
    rows, columns : slice
        The part of each frame that is needed.
    color : bool
        Whether frames are (h, w, 3), BGR.
    """

    data: NDArray[np.uint8]
    ends: tuple[int, ...]
    rows: slice
    columns: slice
    color: bool

    def __len__(self) -> int:
        return len(self.ends)

    def files(self, part: slice) -> Iterator[NDArray[np.uint8]]:
        """Yield the bytes of some of the files."""
        starts = (0, *self.ends[:-1])
        for start, end in zip(starts[part], self.ends[part], strict=True):
            yield self.data[start:end]


def read_encoded(
    source: FrameSource, numbers: Sequence[int], rows: slice, columns: slice, *, color: bool
) -> EncodedFrames | None:
    """Read the files of frames; None where they are not all JPEG, or too large together.

    Raises `ClipError` for a file that cannot be read.
    """
    if not isinstance(source, FolderFrames):
        return None
    files: list[bytes] = []
    left = MOST_BYTES
    for number in numbers:
        content = read_file(source.files[number])
        left -= len(content)
        if left < 0 or not content.startswith(_START):
            return None
        files.append(content)
    ends = np.cumsum([len(content) for content in files])
    data = np.frombuffer(b"".join(files), np.uint8)
    return EncodedFrames(data, tuple(ends.tolist()), rows, columns, color)


def decode_frames(
    encoded: EncodedFrames, frame_size: tuple[int, int], decoder: JpegDecoder, device: Device
) -> Array:
    """Decode a clip's frames on a device and return the part of each that is needed.

    Parameters
    ----------
    encoded : EncodedFrames
    frame_size : (height, width)
        What every frame must have.
    decoder : JpegDecoder
    device : Device

    Returns
    -------
    uint8 (n, h, w) or (n, h, w, 3), on the device

    Raises
    ------
    LeftToCpuError
        When a frame has another size, or nothing can decode it.
    MemoryError
        When one frame does not fit into the device's memory.
    """
    shape = (*frame_size, 3) if encoded.color else frame_size

    def decode(part: slice) -> Array:
        images = _decode(list(encoded.files(part)), decoder, device, color=encoded.color)
        for image in images:
            if image.shape != shape:
                raise LeftToCpuError(f"a frame is {image.shape}, the template frame {shape}")
        return device.xp.stack([image[encoded.rows, encoded.columns] for image in images])

    each = _COPIES_OF_A_FRAME * math.prod(shape)
    return device.xp.concatenate(in_batches(decode, len(encoded), each, device))


def _decode(
    files: Sequence[NDArray[np.uint8]], decoder: JpegDecoder, device: Device, *, color: bool
) -> list[Array]:
    """Decode files on the device, and those on the host that its decoder does not take.

    Nor does it get a file that may be cut off, lest it fill up what is missing.
    """
    whole = [i for i, file in enumerate(files) if file[-len(_END) :].tobytes() == _END]
    taken = decoder.decode([files[i] for i in whole], color=color) if whole else []
    images = dict(zip(whole, taken, strict=True))
    for i, file in enumerate(files):
        if images.get(i) is None:
            images[i] = device.xp.asarray(_decode_on_host(file, color=color))
    return [images[i] for i in range(len(files))]


def _decode_on_host(file: NDArray[np.uint8], *, color: bool) -> NDArray[np.uint8]:
    try:
        return decode_image("a frame", file, color=color)
    except ClipError as error:  # which the CPU will meet again, and name the file
        raise LeftToCpuError(str(error)) from None
