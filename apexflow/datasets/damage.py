"""Whether an image file is whole: its structure against its length, checksums, coded data.

A decoder fills up what is missing, and says so on standard error at most. What libjpeg and
libtiff warn of ("premature end", "corrupt data") is found here, file by file.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from apexflow.datasets.headers import Buffer, Header, tiff_directories

CUT_OFF = "the file is cut off"
_TAIL = 64  # bytes; cameras pad behind the end marker
_PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Adam7: (first column, first row, step across, step down) of each pass. RFC 2083, 2.6.
_PASSES = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
_INFLATED = 1 << 20


def damage(data: Buffer, header: Header, *, deep: bool = True) -> str:
    """Return what is wrong with an image file; empty where it is whole.

    Parameters
    ----------
    data : bytes or memory map
        The whole file.
    header : Header
        Of this file.
    deep : bool
        Look at all of the coded data, as it is done before a frame is decoded; else at the
        header and the end of the file alone.
    """
    check = (_DEEP if deep else _SHALLOW).get(header.format)
    if check is None:
        return ""
    try:
        return check(data, header)
    except (struct.error, IndexError):
        return CUT_OFF
    except (ValueError, OverflowError) as error:
        return str(error)


def _jpeg(data: Buffer, header: Header) -> str:
    from apexflow.datasets.jpeg import coded_damage

    return coded_damage(bytes(data))


def _jpeg_end(data: Buffer, header: Header) -> str:
    if b"\xff\xd9" in data[-_TAIL:]:
        return ""
    from apexflow.datasets.jpeg import end_of_image

    return "" if end_of_image(bytes(data)) else f"{CUT_OFF}: no end marker"


def _png_end(data: Buffer, header: Header) -> str:
    return "" if b"IEND" in data[-_TAIL:] else _png_chunks(data)[0]


def _png(data: Buffer, header: Header) -> str:
    wrong, coded = _png_chunks(data)
    if wrong:
        return wrong
    wanted = _png_bytes(data)
    inflate, found = zlib.decompressobj(), 0
    try:
        for part in coded:
            while part and found <= wanted:
                found += len(inflate.decompress(part, _INFLATED))
                part = inflate.unconsumed_tail  # noqa: PLW2901 - the rest of it
        # What is decoded, but did not fit into the last piece.
        while found <= wanted and (more := inflate.decompress(b"", _INFLATED)):
            found += len(more)
    except zlib.error as error:
        return f"its coded data are corrupt ({error})"
    if found < wanted:
        return f"its coded data hold {found} of {wanted} bytes"
    return ""


def _png_chunks(data: Buffer) -> tuple[str, list[bytes]]:
    """Check each chunk's length and sum; return what is wrong, and the coded parts."""
    at, coded = 8, []
    while True:
        if at + 12 > len(data):
            return f"{CUT_OFF}: no end marker", []
        (length,) = struct.unpack_from(">I", data, at)
        kind = bytes(data[at + 4 : at + 8])
        if at + 12 + length > len(data):
            return f"{CUT_OFF}: chunk {_name(kind)} claims {length} bytes", []
        (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(data[at + 4 : at + 8 + length]) != checksum:
            return f"the checksum of its chunk {_name(kind)} at byte {at} is wrong", []
        if kind == b"IDAT":
            coded.append(bytes(data[at + 8 : at + 8 + length]))
        if kind == b"IEND":
            return ("" if coded else "it holds no picture"), coded
        at += 12 + length


def _name(kind: bytes) -> str:
    return kind.decode("ascii", "replace") if kind.isalpha() else repr(kind)


def _png_bytes(data: Buffer) -> int:
    """Return how many bytes the rows take, each with its filter."""
    width, height, bits, kind, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    pixel = bits * _PNG_SAMPLES.get(kind, 1)
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    total = 0
    for column, row, across, down in passes:
        wide, high = -(-(width - column) // across), -(-(height - row) // down)
        if wide > 0 and high > 0:
            total += high * (1 + (wide * pixel + 7) // 8)
    return total


def _bmp(data: Buffer, header: Header) -> str:
    start, size = struct.unpack_from("<II", data, 10)
    if size == 12:
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, depth, compression = struct.unpack_from("<iiHHI", data, 18)
    if width <= 0 or height == 0 or depth not in {1, 4, 8, 16, 24, 32}:
        return f"its header claims {width}x{height} pixels of {depth} bits"
    if compression not in {0, 3}:  # run lengths have no size that is known before
        return ""
    needed = start + (width * depth + 31) // 32 * 4 * abs(height)
    if len(data) < needed:
        return f"{CUT_OFF}: {len(data)} of {needed} bytes"
    return ""


def _tiff(data: Buffer, header: Header) -> str:
    tags = next(iter(tiff_directories(data)))
    places = tags.get(273) or tags.get(324)
    lengths = tags.get(279) or tags.get(325)
    if not places or not lengths or len(places) != len(lengths):
        return "it does not say where its pixels are"
    for place, length in zip(places, lengths, strict=True):
        if place + length > len(data):
            return f"{CUT_OFF}: {len(data)} of {place + length} bytes"
    if tags.get(259, (1,))[0] == 1 and 273 in tags:
        bits = tags.get(258, (1,))
        samples = tags.get(277, (1,))[0]
        row = (header.width * max(bits) * samples + 7) // 8
        if sum(lengths) < row * header.height:
            return f"its strips hold {sum(lengths)} of {row * header.height} bytes"
    tile = tags.get(322, (0,))[0] * tags.get(323, (0,))[0]
    if tile > max(4 * header.width * header.height, 1 << 20):
        return f"its tiles claim {tile} pixels each"
    return ""


def _tiff_strips(data: Buffer, header: Header) -> str:
    """Check the coded strips or tiles of the first picture as well."""
    wrong = _tiff(data, header)
    if wrong:
        return wrong
    tags = next(iter(tiff_directories(data)))
    compression = tags.get(259, (1,))[0]
    places, lengths = tags.get(273) or tags[324], tags.get(279) or tags[325]
    parts = [bytes(data[at : at + n]) for at, n in zip(places, lengths, strict=True)]
    if compression == 1:
        return ""
    if compression in {8, 32946}:
        return next(filter(None, map(_deflated, parts)), "")
    if compression == 32773:
        return _packed_strips(parts, tags, header)
    if compression == 7:
        tables = bytes(tags.get(347, ()))
        return next(filter(None, (_jpeg_strip(tables, part) for part in parts)), "")
    return _by_pillow(data)


def _deflated(part: bytes) -> str:
    inflate, left = zlib.decompressobj(), part
    try:
        while left and not inflate.eof:
            inflate.decompress(left, _INFLATED)
            left = inflate.unconsumed_tail
        while not inflate.eof and inflate.decompress(b"", _INFLATED):
            pass
    except zlib.error as error:
        return f"its coded data are corrupt ({error})"
    return "" if inflate.eof else "its coded data end early"


def _packed_strips(parts: list[bytes], tags: Mapping[int, tuple[int, ...]], header: Header) -> str:
    """Compare what strips of PackBits hold with the rows that they are for."""
    rows = min(tags.get(278, (header.height,))[0], header.height)
    samples = 1 if tags.get(284, (1,))[0] == 2 else tags.get(277, (1,))[0]
    width = (header.width * samples * max(tags.get(258, (1,))) + 7) // 8
    strips = max(1, -(-header.height // max(1, rows)))
    for i, part in enumerate(parts if 273 in tags else ()):
        wanted = width * min(rows, header.height - i % strips * rows)
        found = _unpacked(part)
        if found != wanted:
            return f"its coded data hold {found} of {wanted} bytes"
    return ""


def _unpacked(part: bytes) -> int:
    """Return how many bytes a strip of PackBits holds; -1 where it ends in a run. TIFF 6.0, 9."""
    at = total = 0
    while at < len(part):
        count = part[at]
        if count < 128:
            total += count + 1
            at += count + 2
        else:
            total += 257 - count if count > 128 else 0
            at += 2 if count > 128 else 1
    return total if at == len(part) else -1


def _jpeg_strip(tables: bytes, part: bytes) -> str:
    from apexflow.datasets.jpeg import coded_damage

    try:
        return coded_damage(tables[:-2] + part[2:] if tables[:2] == part[:2] else part)
    except (struct.error, IndexError):
        return "its coded data end early"


def _by_pillow(data: Buffer) -> str:
    """Decode with Pillow, which passes on what libtiff warns of; OpenCV does not."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd tags; pixels are what counts
        try:
            image = Image.open(io.BytesIO(bytes(data)))
        except Exception:  # a kind that Pillow does not read
            return ""
        try:
            image.load()
        except Exception as error:  # the decoders raise what they like
            return f"its coded data are corrupt ({error})".replace("\n", " ")
    return ""


def _webp(data: Buffer, header: Header) -> str:
    (size,) = struct.unpack_from("<I", data, 4)
    return f"{CUT_OFF}: {len(data)} of {size + 8} bytes" if len(data) < size + 8 else ""


_SPACE = rb"(?:\s|#[^\n]*\n)+"
_PNM_BINARY = re.compile(
    rb"P(?:(4)" + _SPACE + rb"\d+" + _SPACE + rb"\d+\s|[56]" + (_SPACE + rb"\d+") * 3 + rb"\s)"
)


def _pnm(data: Buffer, header: Header) -> str:
    match = _PNM_BINARY.match(data[:1024])
    if match is None:
        return _pnm_text(bytes(data), header)
    if match[1]:
        pixels = (header.width + 7) // 8 * header.height
    else:
        pixels = header.width * header.height * header.channels * (2 if header.bits > 8 else 1)
    needed = match.end() + pixels
    return f"{CUT_OFF}: {len(data)} of {needed} bytes" if len(data) < needed else ""


def _pnm_text(data: bytes, header: Header) -> str:
    """Count the values of a PNM that is text: the last may end where the file does."""
    words = re.sub(rb"#[^\r\n]*", b" ", data).split()
    needed = header.width * header.height * header.channels
    # Bits (P1) need no space between them; the other kinds say their maximum first.
    found = sum(map(len, words[3:])) if words[0] == b"P1" else len(words) - 4
    if found < needed:
        return f"{CUT_OFF}: {found} of {needed} values"
    if words[0] == b"P1":
        return ""
    values, most = words[4 : 4 + needed], int(words[3])
    strange = next((word for word in values if not word.isdigit()), None)
    if strange is not None:
        return f"it holds {strange[:20]!r} in place of a value"
    highest = max(map(int, values))
    return f"it holds the value {highest}, above its maximum {most}" if highest > most else ""


_Check = Callable[[Buffer, Header], str]
_SIZES: dict[str, _Check] = {"BMP": _bmp, "TIFF": _tiff, "WebP": _webp, "PNM": _pnm}
_SHALLOW: Mapping[str, _Check] = MappingProxyType(
    {**_SIZES, "JPEG": _jpeg_end, "PNG": _png_end},
)
_DEEP: Mapping[str, _Check] = MappingProxyType(
    {**_SIZES, "JPEG": _jpeg, "PNG": _png, "TIFF": _tiff_strips}
)
