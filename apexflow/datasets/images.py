"""One way to open an image: for the audit, for processing, for everybody.

The format is told by the content. What is cut off, damaged, or claims more than memory should
hold is refused before it is decoded; so an audit and a run agree about every file.
"""

from __future__ import annotations

import hashlib
import mmap
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.datasets.damage import damage
from apexflow.datasets.decoder_warnings import decoder_warned
from apexflow.datasets.headers import Header, read_header
from apexflow.errors import ClipError

Image = NDArray[np.uint8]
Bits = int | Callable[[], int | None] | None

# 8192 x 8192: thirty times a frame of SAMM, 64 MiB decoded to gray.
MAX_PIXELS = 1 << 26
# The same in colour, of 16 bits a sample.
MAX_DECODED_BYTES = 6 * MAX_PIXELS
MAX_FILE_BYTES = 1 << 29

DEPTHS = (8, 10, 12, 14, 16)
"""Bits of a sample that cameras store in 16."""

_BLACK = 16  # gray level; black in video's limited range
_PNM_TEXT = {b"P1", b"P2", b"P3"}
_DEEP_FORMATS = frozenset({"PNG", "TIFF", "PNM", "JPEG 2000"})


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a look at an image file has found.

    Attributes
    ----------
    header : Header
    size : (width, height)
        Of the picture as it is decoded, turned upright.
    highest : int or None
        The greatest value of a picture of more than 8 bits; None of others, and undecoded.
    digest : bytes
        Of the pixels; empty when they were not decoded.
    black : bool
        Whether no pixel is brighter than black.
    left_over : int
        Bytes among a JPEG's coded data that code nothing, which its decoder warns of.
    """

    header: Header
    size: tuple[int, int]
    highest: int | None = None
    digest: bytes = b""
    black: bool = False
    left_over: int = 0


def read_image(path: Path, *, color: bool, bits: Bits = None) -> Image:
    """Decode one image file.

    Parameters
    ----------
    path : path
    color : bool
        Keep colours where the file has them.
    bits : int or callable, optional
        Of a sample that is stored in 16: those that the whole clip uses, see `range_bits`, or
        what finds them, called for such a picture alone. By default those that it uses itself.

    Returns
    -------
    uint8 (H, W), or (H, W, 3) BGR where the file has colours and they are wanted

    Raises
    ------
    ClipError
        The file cannot be read, is not a whole image, or claims too much.
    """
    return decode_image(path, np.frombuffer(_content(path), np.uint8), color=color, bits=bits)


def read_file(path: Path) -> bytes:
    """Return the content of an image file that claims a size within reason.

    Whether it is whole, `is_whole` and decoding tell. Raises `ClipError`.
    """
    content = _content(path)
    header = read_header(content)
    if header is not None:
        _refuse_giant(path, header)
    return content


def is_whole(data: NDArray[np.uint8]) -> bool:
    """Tell whether the content of an image file, uint8 (bytes,), is decoded without a doubt."""
    try:
        _checked_header("", data.tobytes())
    except ClipError:
        return False
    return True


def decode_image(
    name: str | Path, data: NDArray[np.uint8], *, color: bool, bits: Bits = None
) -> Image:
    """Decode the content of an image file that errors call ``name``, as `read_image` does.

    ``data`` is uint8 (bytes,).
    """
    content = data.tobytes()
    header = _checked_header(name, content, deep=not _is_jpeg(content))
    if header.bits <= 8:
        flags = cv2.IMREAD_ANYCOLOR if color else cv2.IMREAD_GRAYSCALE
        return _decoded_whole(name, content, data, flags)
    deep = _decoded_deep(name, data, header, color=color)
    return _to_bytes(deep, bits() if callable(bits) else bits)


def highest_value(path: Path) -> int | None:
    """Return the greatest value of a picture of more than 8 bits; None of any other file."""
    try:
        if _shallow(path).bits <= 8:
            return None
        content = _content(path)
        header = _checked_header(path, content)
        data = np.frombuffer(content, np.uint8)
        return int(_decoded_deep(path, data, header, color=False).max())
    except ClipError:  # the frame fails by itself, where it is needed
        return None


def range_bits(highest: Iterable[int | None]) -> int | None:
    """Return the bits that pictures of more than 8 use, from the greatest value of each.

    8, 10, 12, 14 or 16; None where no picture has more than 8.
    """
    known = [value for value in highest if value is not None]
    return min((b for b in DEPTHS if max(known) < 1 << b), default=16) if known else None


def inspect_image(path: Path, *, deep: bool) -> ImageFacts:
    """Look at an image file: all of it, as it would be decoded, or header and end alone.

    Raises `ClipError` with the reason for a file that cannot be used.
    """
    if not deep:
        header = _shallow(path)
        return ImageFacts(header, header.size)
    content = _content(path)
    header = _checked_header(path, content, deep=not _is_jpeg(content))
    data = np.frombuffer(content, np.uint8)
    if header.bits <= 8:
        image: NDArray[np.generic] = _decoded_whole(path, content, data, cv2.IMREAD_ANYCOLOR)
        highest, black = None, int(image.max()) <= _BLACK
    else:
        image = _decoded_deep(path, data, header, color=True)
        highest = int(image.max())
        black = highest == 0
    digest = hashlib.blake2b(image.tobytes(), digest_size=16)
    digest.update(str(image.shape).encode())
    size = image.shape[1], image.shape[0]
    left_over = _left_over(content) if header.format == "JPEG" else 0
    return ImageFacts(header, size, highest, digest.digest(), black, left_over)


def _left_over(content: bytes) -> int:
    from apexflow.datasets.jpeg import bytes_left_over

    return bytes_left_over(content)


def _content(path: Path) -> bytes:
    """Read a file that is one, and of a size that an image may have."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device may never end
            raise ClipError(f"{path} is not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise ClipError(
                f"{path} has {status.st_size} bytes; an image of more than {MAX_FILE_BYTES} is "
                "not read"
            )
        return path.read_bytes()
    except OSError as error:
        raise ClipError(f"{path}: {error.strerror}") from None


def _shallow(path: Path) -> Header:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ClipError(f"{path} is not a regular file")
        if not status.st_size:
            return _checked_header(path, b"")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _checked_header(path, data, deep=False)
    except OSError as error:
        raise ClipError(f"{path}: {error.strerror}") from None


def _checked_header(name: str | Path, data: bytes | mmap.mmap, *, deep: bool = True) -> Header:
    """Return the header of a whole image of a reasonable size.

    Raises `ClipError` for anything else.
    """
    if not len(data):
        raise ClipError(f"{name} is truncated, or not an image (0 bytes)")
    header = read_header(data)
    if header is None:
        raise ClipError(
            f"{name} is truncated, or not an image ({len(data)} bytes, no image header)"
        )
    _refuse_giant(name, header)
    wrong = damage(data, header, deep=deep)
    if wrong.startswith("the file is cut off"):
        raise ClipError(f"{name} is truncated, or not an image ({header.format}: {wrong})")
    if wrong:
        raise ClipError(f"{name} is damaged ({header.format}): {wrong}; copy it again")
    return header


def _refuse_giant(name: str | Path, header: Header) -> None:
    claimed = f"{name} claims {header.width}x{header.height} pixels"
    if header.width < 1 or header.height < 1:
        raise ClipError(f"{claimed}: it is truncated, or not an image")
    if header.width * header.height > MAX_PIXELS:
        raise ClipError(f"{claimed}; {MAX_PIXELS} is the most")
    if header.decoded_bytes > MAX_DECODED_BYTES:
        raise ClipError(
            f"{claimed} of {header.channels} samples of {header.bits} bits, "
            f"{header.decoded_bytes} bytes; {MAX_DECODED_BYTES} is the most"
        )


def _is_jpeg(content: bytes) -> bool:
    return content[:2] == b"\xff\xd8"


def _decoded_whole(name: str | Path, content: bytes, data: NDArray[np.uint8], flags: int) -> Image:
    """Decode a picture of 8 bits; look through the data of a JPEG that its decoder warned of."""
    with decoder_warned() as warned:
        image = _decoded(name, data, flags)
    if _is_jpeg(content) and warned():
        _checked_header(name, content)
    return image


def _decoded(name: str | Path, data: NDArray[np.uint8], flags: int) -> Image:
    if data[:2].tobytes() in _PNM_TEXT:  # OpenCV looks for what ends the last value
        data = np.append(data, np.uint8(ord("\n")))
    try:
        image = cv2.imdecode(data, flags)
    except cv2.error:  # more pixels than OpenCV accepts, or a format that it was built without
        image = None
    if image is None:
        raise ClipError(f"{name} is truncated, or not an image ({data.size} bytes)")
    return image


def _decoded_deep(
    name: str | Path, data: NDArray[np.uint8], header: Header, *, color: bool
) -> NDArray[np.uint16]:
    """Decode a picture of more than 8 bits a sample with all of them."""
    if header.is_float or header.bits > 16 or header.format not in _DEEP_FORMATS:
        kind = "floating-point" if header.is_float else f"{header.bits}-bit"
        raise ClipError(
            f"{name} has {kind} pixels ({header.format}); save it with 8 or 16 bits a sample"
        )
    flags = cv2.IMREAD_ANYDEPTH | (cv2.IMREAD_ANYCOLOR if color else cv2.IMREAD_GRAYSCALE)
    image = _decoded(name, data, flags).astype(np.uint16, copy=False)
    # OpenCV turns such pictures of 8 bits, and leaves those of 16 as they are.
    return ~image if header.white_is_zero else image


def _to_bytes(image: NDArray[np.uint16], bits: int | None) -> Image:
    """Scale values of ``bits`` to 8 by dropping the lowest."""
    used = bits or range_bits([int(image.max())]) or 8
    return np.minimum(image >> (used - 8), 255).astype(np.uint8)
