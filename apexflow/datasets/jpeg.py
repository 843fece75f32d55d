"""Whether the coded data of a JPEG are what its frame needs: ITU-T T.81, read and thrown away.

libjpeg fills up what is missing with gray, and goes on behind what it cannot decode; all it
does is count a warning that OpenCV and Pillow do not pass on. Here the Huffman codes are walked
through without making a pixel: a code that does not exist, data that end before the last block,
or bytes that are left over are damage.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from apexflow.datasets.headers import JPEG_ALONE, JPEG_FRAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

_RESTART = re.compile(rb"\xff+[\xd0-\xd7]")
_SEARCHED = 1 << 16  # bytes at a time
_HUFFMAN = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
_PROGRESSIVE = 0xC2
# An image has 10 scans as libjpeg writes it, and 190 at most that make sense (T.81, G.1.1.1.1);
# each costs a pass over all blocks.
_MOST_SCANS = 200
# libjpeg holds as many bytes in its bit buffer, and lets them lie without a word.
_SLACK = 8
_LOOK_AHEAD, _SHORT = 512, 11  # bytes, bits; see `jpeg_walk`


@dataclass(frozen=True, slots=True)
class _Component:
    """One colour component of a frame: sampling factors, and blocks across and down."""

    across: int
    down: int
    wide: int
    high: int


@dataclass(frozen=True, slots=True)
class _Frame:
    """What the start of frame says."""

    marker: int
    mcus: int
    components: Mapping[int, _Component]


@dataclass(frozen=True, slots=True)
class _Scan:
    """One scan: its components with their tables, its band of coefficients, its data."""

    components: tuple[tuple[int, int, int], ...]  # (id, DC table, AC table)
    first: int
    last: int
    before: int
    data: bytes
    interval: int
    tables: Mapping[tuple[int, int], bytes]


@dataclass(slots=True)
class _State:
    frame: _Frame | None = None
    interval: int = 0
    tables: dict[tuple[int, int], bytes] = field(default_factory=dict)
    ended: bool = False


def end_of_image(data: bytes) -> int:
    """Return where the image ends, behind its end marker; 0 where it does not."""
    state = _State()
    try:
        for end in _walk(data, state):
            if isinstance(end, int):
                return end
    except (struct.error, IndexError, ValueError):
        return 0
    return 0


def coded_damage(data: bytes) -> str:
    """Return what is wrong with a JPEG; empty where it is whole.

    Raises `struct.error` or `IndexError` where the file ends within a segment.
    """
    return next((wrong for wrong, _ in _verdicts(data) if wrong), "")


def bytes_left_over(data: bytes) -> int:
    """Return how many bytes of a whole JPEG's scans code nothing: webcams leave one or two.

    Of a picture that decoders find whole though its segments lead beyond the file's end, those
    of the scans before that count.
    """
    most = 0
    with suppress(struct.error, IndexError, ValueError):
        for _, left in _verdicts(data):
            most = max(most, left)
    return most


def _verdicts(data: bytes) -> Iterator[tuple[str, int]]:
    """Yield (what is wrong, bytes left over) of each scan."""
    state = _State()
    masks: dict[int, NDArray[np.uint64]] = {}
    for scans, found in enumerate(_walk(data, state)):
        if isinstance(found, int):
            yield "" if scans else "it holds no picture", 0
            return
        if scans >= _MOST_SCANS:
            yield f"it has more than {_MOST_SCANS} scans", 0
            return
        yield ("", 0) if state.frame is None else _scan_damage(state.frame, found, masks)
    yield "the file is cut off: no end marker", 0


def _walk(data: bytes, state: _State) -> Iterator[_Scan | int]:
    """Yield each scan, and last the end of the image, if it has one."""
    at = 2
    while at < len(data):
        if data[at] != 0xFF:
            at = _next_marker(data, at)
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == 0xD9:
            yield at + 2
            return
        elif marker in JPEG_ALONE:
            at += 2
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            body = data[at + 4 : at + 2 + length]
            if length < 2 or len(body) != length - 2:
                raise IndexError
            at += 2 + length
            if marker == 0xDA:
                stop = _end_of_data(data, at)
                if stop == len(data):
                    raise IndexError
                yield _scan(body, data[at:stop], state)
                at = stop
            else:
                _remember(marker, body, state)


def _end_of_data(data: bytes, at: int) -> int:
    """Return where the marker is that ends coded data: no stuffed 0xFF00, and no restart."""
    values = np.frombuffer(data, np.uint8)
    while at < len(data):
        part = values[at : at + _SEARCHED + 1]
        after = part[1:][part[:-1] == 0xFF]
        ends = (after != 0x00) & (after != 0xFF) & ((after < 0xD0) | (after > 0xD7))
        if ends.any():
            return at + int(np.flatnonzero(part[:-1] == 0xFF)[int(ends.argmax())])
        at += _SEARCHED
    return len(data)


def _next_marker(data: bytes, at: int) -> int:
    found = _end_of_data(data, at)
    if found == len(data):
        raise IndexError
    if found - at > _SLACK:
        raise ValueError(f"{found - at} bytes before a marker belong to nothing")
    return found


def _remember(marker: int, body: bytes, state: _State) -> None:
    if marker == 0xC4:
        at = 0
        while at < len(body):
            total = sum(body[at + 1 : at + 17])
            kind, number = body[at] >> 4, body[at] & 15
            state.tables[kind, number] = body[at + 1 : at + 17 + total]
            at += 17 + total
    elif marker == 0xDD:
        (state.interval,) = struct.unpack(">H", body[:2])
    elif marker in JPEG_FRAMES:
        state.frame = _frame(marker, body)


def _frame(marker: int, body: bytes) -> _Frame:
    _, height, width, count = struct.unpack_from(">BHHB", body)
    listed = [(body[6 + 3 * i], body[7 + 3 * i] >> 4, body[7 + 3 * i] & 15) for i in range(count)]
    if not listed or not all(h and v for _, h, v in listed):
        raise ValueError("its frame has no components")
    most_h, most_v = max(h for _, h, _ in listed), max(v for _, _, v in listed)
    across, down = _ceil(width, 8 * most_h), _ceil(height, 8 * most_v)
    components = {
        name: _Component(
            h,
            v,
            _ceil(_ceil(width * h, most_h), 8),
            _ceil(_ceil(height * v, most_v), 8),
        )
        for name, h, v in listed
    }
    return _Frame(marker, across * down, components)


def _ceil(value: int, step: int) -> int:
    return -(-value // step)


def _scan(body: bytes, data: bytes, state: _State) -> _Scan:
    count = body[0]
    chosen = tuple(
        (body[1 + 2 * i], body[2 + 2 * i] >> 4, body[2 + 2 * i] & 15) for i in range(count)
    )
    first, last, approximation = body[1 + 2 * count : 4 + 2 * count]
    return _Scan(chosen, first, last, approximation >> 4, data, state.interval, dict(state.tables))


def _scan_damage(
    frame: _Frame, scan: _Scan, masks: dict[int, NDArray[np.uint64]]
) -> tuple[str, int]:
    if frame.marker not in _HUFFMAN or not frame.mcus:
        return "", 0  # arithmetic or lossless coding, or a height that comes later
    if any(name not in frame.components for name, _, _ in scan.components) or not scan.components:
        return "a scan is of a component that its frame does not have", 0
    units = _units(frame, scan)
    starts, bits = _split(scan)
    per_segment = scan.interval or units
    missing = _ceil(units, per_segment) - len(starts)
    if missing > 0:
        return f"its coded data end early: {missing} parts are missing", 0
    joined, offsets = _join(starts, bits)
    done, left, bad = _decode(frame, scan, masks, joined, offsets, per_segment, units)
    if bad:
        return f"its coded data are corrupt after {done} of {units} blocks", 0
    if done < units:
        return f"its coded data end early, after {done} of {units} blocks", 0
    wrong = f"its coded data are corrupt: {left} bytes are left over" if left > _SLACK else ""
    return wrong, left


def _units(frame: _Frame, scan: _Scan) -> int:
    """Return the number of units that a scan codes: MCUs, or blocks of its one component."""
    if len(scan.components) > 1:
        return frame.mcus
    one = frame.components[scan.components[0][0]]
    return one.wide * one.high


def _split(scan: _Scan) -> tuple[list[int], list[bytes]]:
    """Cut the data at the restart markers and take the stuffing out."""
    parts = _RESTART.split(scan.data) if scan.interval else [scan.data]
    if len(parts) > 1 and not parts[-1]:
        parts.pop()
    plain = [part.rstrip(b"\xff").replace(b"\xff\x00", b"\xff") for part in parts]
    return [len(part) for part in plain], plain


def _join(lengths: list[int], parts: list[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    offsets[1:] = np.cumsum(lengths)
    return np.frombuffer(b"".join(parts) + bytes(_LOOK_AHEAD), np.uint8), offsets


@lru_cache(64)
def _lookup(table: bytes) -> NDArray[np.uint16]:
    """Return what each bits that may follow stand for, as `jpeg_walk` says."""
    found = np.zeros(1 << 16, np.uint16)
    code, at = 0, 16
    for length in range(1, 17):
        for _ in range(table[length - 1]):
            if at >= len(table) or code >= 1 << length:
                raise ValueError("its Huffman table is corrupt")
            start = code << (16 - length)
            found[start : start + (1 << (16 - length))] = length << 8 | table[at]
            code += 1
            at += 1
        code <<= 1
    short = found[:: 1 << (16 - _SHORT)]
    return np.concatenate([found, np.where(short >> 8 <= _SHORT, short, 0)]).astype(np.uint16)


def _table(scan: _Scan, kind: int, number: int) -> NDArray[np.uint16]:
    table = scan.tables.get((kind, number))
    if table is None:
        raise ValueError("a scan names a Huffman table that is not there")
    return _lookup(table)


def _decode(
    frame: _Frame,
    scan: _Scan,
    masks: dict[int, NDArray[np.uint64]],
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    per_segment: int,
    units: int,
) -> tuple[int, int, bool]:
    """Walk a scan; return the units that are there, the bytes left over, whether a code is bad."""
    from apexflow.datasets import jpeg_walk

    alone = len(scan.components) == 1
    blocks = [
        (dc, ac)
        for name, dc, ac in scan.components
        for _ in range(1 if alone else frame.components[name].across * frame.components[name].down)
    ]
    if frame.marker != _PROGRESSIVE:
        dc_tables = np.stack([_table(scan, 0, dc) for dc, _ in blocks])
        ac_tables = np.stack([_table(scan, 1, ac) for _, ac in blocks])
        found = jpeg_walk.sequential(data, offsets, per_segment, units, dc_tables, ac_tables)
    elif scan.first == 0:
        dc_tables = (
            np.zeros((len(blocks), 1), np.uint16)
            if scan.before
            else np.stack([_table(scan, 0, dc) for dc, _ in blocks])
        )
        found = jpeg_walk.dc_scan(data, offsets, per_segment, units, dc_tables, scan.before > 0)
    else:
        name, _, ac = scan.components[0]
        mask = masks.setdefault(name, np.zeros(units, np.uint64))
        walk = jpeg_walk.ac_refinement if scan.before else jpeg_walk.ac_scan
        last = min(scan.last, 63)
        found = walk(data, offsets, per_segment, units, _table(scan, 1, ac), scan.first, last, mask)
    done, left, bad = found
    return int(done), int(left), bool(bad)
