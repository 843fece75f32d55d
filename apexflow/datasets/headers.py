"""How large an image says that it is, read from its first bytes before anything is decoded.

A file of a few kilobytes may claim a picture of gigabytes (a decompression bomb); a decoder
believes it.
"""

from __future__ import annotations

import struct

_PNG = b"\x89PNG\r\n\x1a\n"
# Start of frame: every 0xC0..0xCF but the tables DHT, JPG and DAC.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TIFF_SIDES = (256, 257)  # ImageWidth, ImageLength
_TIFF_KINDS = {3: "H", 4: "I"}
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) as the header has it; None when there is no header to read.

    JPEG: ITU-T T.81, B.1.1; PNG: RFC 2083, 4.1.1; BMP: the BITMAPINFOHEADER; TIFF 6.0,
    section 2. Of any other format OpenCV itself refuses 2^30 pixels.
    """
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg(data)
        if data[:8] == _PNG:
            width, height = struct.unpack_from(">II", data, 16)
            return width, height
        if data[:2] == b"BM":
            width, height = struct.unpack_from("<ii", data, 18)
            return width, abs(height)  # negative when the rows run downwards
        if data[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(data)
    except (struct.error, IndexError):
        pass
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # filling before a marker
            at += 1
        elif marker in _JPEG_ALONE:
            at += 2
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            at += 2 + length
    return None


def _tiff(data: bytes) -> tuple[int, int] | None:
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, directory)
    sides = {}
    for i in range(count):
        entry = directory + 2 + 12 * i
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if tag in _TIFF_SIDES:
            (sides[tag],) = struct.unpack_from(order + _TIFF_KINDS.get(kind, "I"), data, entry + 8)
    width, height = (sides.get(tag) for tag in _TIFF_SIDES)
    return None if width is None or height is None else (width, height)
