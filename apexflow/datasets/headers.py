"""What an image says of itself, read from its first bytes before anything is decoded.

The format is told by the content, never by the file's name. A file of a few kilobytes may
claim a picture of gigabytes (a decompression bomb); a decoder believes it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Buffer = Any
"""Bytes, or a memory map of them."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Start of frame: every 0xC0..0xCF but the tables DHT, JPG and DAC.
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_MOST_PAGES = 10_000


@dataclass(frozen=True, slots=True)
class Header:
    """What an image file claims.

    Attributes
    ----------
    format : str
        "JPEG", "PNG", "BMP", "TIFF", "WebP", "PNM", "GIF", "JPEG 2000", "AVIF" or
        "Sun raster".
    width, height : int
        As stored, before it is turned.
    bits : int
        Of one sample.
    channels : int
    orientation : int
        1 to 8, as EXIF and TIFF number them; 1 is upright.
    pages : int
        Pictures in the file.
    is_float : bool
    white_is_zero : bool
        Whether a TIFF's greatest value is black.
    """

    format: str
    width: int
    height: int
    bits: int = 8
    channels: int = 1
    orientation: int = 1
    pages: int = 1
    is_float: bool = False
    white_is_zero: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the picture that a decoder gives, which it turns upright."""
        turned = self.orientation >= 5
        return (self.height, self.width) if turned else (self.width, self.height)

    @property
    def decoded_bytes(self) -> int:
        """What the picture takes in memory."""
        return self.width * self.height * self.channels * ((self.bits + 7) // 8)


def read_header(data: Buffer) -> Header | None:
    """Return what an image claims; None where the content is not an image, or is cut off.

    JPEG: ITU-T T.81, B.1.1; PNG: RFC 2083, 4.1.1; BMP: the BITMAPINFOHEADER; TIFF 6.0,
    section 2; WebP: RFC 9649; PNM: the netpbm manual.
    """
    for start, parse in _PARSERS:
        if start.match(data[:16]):
            try:
                return parse(data)
            except (struct.error, IndexError, ValueError, OverflowError):
                return None
    return None


def claimed_size(data: Buffer) -> tuple[int, int] | None:
    """Return (width, height) as the header has it; None when there is no header to read."""
    header = read_header(data)
    return None if header is None else (header.width, header.height)


def jpeg_segments(data: Buffer) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, first byte, end) of each segment of a JPEG up to its first scan.

    The last is the start of scan, marker 0xDA. Raises `IndexError` or `struct.error` where
    the file ends before, `ValueError` where there is no marker.
    """
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ValueError(f"no marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # filling before a marker
            at += 1
        elif marker in JPEG_ALONE:
            at += 2
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            yield marker, at + 4, at + 2 + length
            if marker in {0xD9, 0xDA}:
                return
            at += 2 + length


def _jpeg(data: Buffer) -> Header | None:
    orientation = 1
    for marker, start, end in jpeg_segments(data):
        if marker == 0xE1 and data[start : start + 6] == b"Exif\0\0":
            orientation = _exif_orientation(data[start + 6 : end])
        if marker in JPEG_FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, start)
            return Header("JPEG", width, height, bits, channels, orientation)
    return None


def _exif_orientation(exif: bytes) -> int:
    try:
        tags = dict(_tiff_tags(exif, exif[:2] == b"II", _first_directory(exif)))
    except (struct.error, IndexError, ValueError):
        return 1
    found = tags.get(274, (1,))[0]
    return found if 1 <= found <= 8 else 1


def _png(data: Buffer) -> Header | None:
    width, height, bits, kind = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR":
        return None
    return Header(
        "PNG",
        width,
        height,
        8 if kind == 3 else bits,
        _PNG_CHANNELS.get(kind, 4),
        *_png_extras(data),
    )


def _png_extras(data: Buffer) -> tuple[int, int]:
    """Return the orientation, and the number of pictures of an animated PNG."""
    orientation, pages, at = 1, 1, 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind = data[at + 4 : at + 8]
        if kind == b"eXIf":
            orientation = _exif_orientation(data[at + 8 : at + 8 + length])
        if kind == b"acTL":
            pages = max(1, int.from_bytes(data[at + 8 : at + 12]))
        if kind == b"IDAT":
            break
        at += 12 + length
    return orientation, pages


def _bmp(data: Buffer) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:  # OS/2's first header
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        return Header("BMP", width, height, 8, 3)
    width, height, _, depth = struct.unpack_from("<iiHH", data, 18)
    # The height is negative when the rows run downwards.
    return Header("BMP", abs(width), abs(height), 8, 4 if depth == 32 else 3)


def tiff_directories(data: Buffer) -> Iterator[dict[int, tuple[int, ...]]]:
    """Yield the tags of each directory of a TIFF, classic or Big: one a picture.

    Raises `struct.error` or `IndexError` where the file ends before a directory does, and
    `ValueError` for a circle of directories.
    """
    seen: set[int] = set()
    at = _first_directory(data)
    little = data[:2] == b"II"
    while at:
        if at in seen or len(seen) > _MOST_PAGES:
            raise ValueError("its directories run in a circle")
        seen.add(at)
        found = dict(_tiff_tags(data, little, at))
        yield found
        at = found[_NEXT][0]


_NEXT = -1
_TIFF_KINDS = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 16: "Q", 17: "q"}
_TIFF_KINDS |= {18: "Q"}
_MOST_VALUES = 1 << 20


def _is_big(data: Buffer) -> bool:
    return 43 in {data[2], data[3]}


def _first_directory(data: Buffer) -> int:
    order = "<" if data[:2] == b"II" else ">"
    kind, at = ("Q", 8) if _is_big(data) else ("I", 4)
    (first,) = struct.unpack_from(order + kind, data, at)
    return int(first)


def _tiff_tags(data: Buffer, little: bool, at: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    order = "<" if little else ">"
    big = _is_big(data)
    count_kind, offset_kind, entry, inline = ("Q", "Q", 20, 8) if big else ("H", "I", 12, 4)
    (count,) = struct.unpack_from(order + count_kind, data, at)
    at += struct.calcsize(order + count_kind)
    for i in range(min(count, 65535)):
        tag, kind, number = struct.unpack_from(f"{order}HH{offset_kind}", data, at + entry * i)
        letter = _TIFF_KINDS.get(kind)
        if letter is None or number > _MOST_VALUES:
            continue
        place = at + entry * i + entry - inline
        if struct.calcsize(f"{order}{number}{letter}") > inline:
            (place,) = struct.unpack_from(order + offset_kind, data, place)
        yield tag, struct.unpack_from(f"{order}{number}{letter}", data, place)
    try:
        yield _NEXT, struct.unpack_from(order + offset_kind, data, at + entry * count)
    except struct.error:  # a directory at the end of the file, without a next one
        yield _NEXT, (0,)


def _tiff(data: Buffer) -> Header | None:
    pages = list(tiff_directories(data))
    first = pages[0]
    if 256 not in first or 257 not in first:
        return None
    bits = max(first.get(258, (1,)), default=1)
    orientation = first.get(274, (1,))[0]
    whole = [page for page in pages if not page.get(254, (0,))[0] & 1]  # no thumbnails
    return Header(
        "TIFF",
        first[256][0],
        first[257][0],
        max(bits, 8),
        first.get(277, (1,))[0],
        orientation if 1 <= orientation <= 8 else 1,
        max(1, len(whole)),
        is_float=first.get(339, (1,))[0] == 3,
        white_is_zero=first.get(262, (1,))[0] == 0,
    )


_WEBP_ANIMATED = 0x02


def _webp(data: Buffer) -> Header | None:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("WebP", width & 0x3FFF, height & 0x3FFF, 8, 3)
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        return Header("WebP", (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, 8, 4)
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[i : i + 3], "little") + 1 for i in (24, 27))
        at = data.find(b"EXIF")
        orientation = _exif_orientation(data[at + 8 :]) if at > 0 else 1
        pages = len(re.findall(b"ANMF", data)) if data[20] & _WEBP_ANIMATED else 1
        return Header("WebP", width, height, 8, 4, orientation, max(1, pages))
    return None


def _gif(data: Buffer) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    return Header("GIF", width, height, 8, 3)


_PNM = re.compile(rb"P([1-6])\s+(?:#.*\s+)*(\d{1,9})\s+(?:#.*\s+)*(\d{1,9})\s+(?:(\d{1,9})\s)?")


def _pnm(data: Buffer) -> Header | None:
    match = _PNM.match(data[:1024])
    if match is None:
        return None
    kind, width, height = (int(match[i]) for i in (1, 2, 3))
    most = 1 if kind in {1, 4} else int(match[4] or 255)
    return Header("PNM", width, height, 16 if most > 255 else 8, 3 if kind in {3, 6} else 1)


def _jpeg2000(data: Buffer) -> Header | None:
    at = data.find(b"ihdr")
    if at >= 0:
        height, width, channels, depth = struct.unpack_from(">IIHB", data, at + 4)
        return Header("JPEG 2000", width, height, (depth & 0x7F) + 1, channels)
    at = data.find(b"\xff\x51")
    width, height, left, top = struct.unpack_from(">IIII", data, at + 6)
    return Header("JPEG 2000", width - left, height - top, 8, 3)


def _avif(data: Buffer) -> Header | None:
    at = data.find(b"ispe")
    if at < 0:
        return None
    width, height = struct.unpack_from(">II", data, at + 8)
    return Header("AVIF", width, height, 8, 3)


def _sun_raster(data: Buffer) -> Header:
    width, height, depth = struct.unpack_from(">III", data, 4)
    return Header("Sun raster", width, height, 8, max(1, depth // 8))


_PARSERS: tuple[tuple[re.Pattern[bytes], Callable[[Buffer], Header | None]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(re.escape(PNG_SIGNATURE)), _png),
    (re.compile(rb"BM"), _bmp),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), _tiff),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    (re.compile(rb"GIF8[79]a"), _gif),
    (re.compile(rb"P[1-6]\s"), _pnm),
    (re.compile(rb"\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51"), _jpeg2000),
    (re.compile(rb"....ftyp(?:avif|avis)", re.DOTALL), _avif),
    (re.compile(rb"\x59\xa6\x6a\x95"), _sun_raster),
)
