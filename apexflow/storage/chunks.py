"""Writing one whole chunk of an array without Zarr's event loop.

Zarr takes about 2 ms for a small chunk, nearly all of it handed from thread to thread; a clip
has four or more. The bytes are those that Zarr itself would write: a chunk written here is read
by any Zarr library. Arrays of other codecs than a new store's are left to Zarr.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import Blosc
from numpy.typing import NDArray
from zarr.storage import LocalStore

from apexflow.storage.target import sync_file
from apexflow.storage.zarr_private import default_buffer_prototype, sync

Encode = Callable[[Any], bytes]

_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}


class ChunkWriter:
    """Writes chunks of one array along its first axis.

    Attributes
    ----------
    rows : int
        Rows of a chunk.
    """

    def __init__(self, array: zarr.Array[Any], encode: Encode) -> None:
        self.rows = array.chunks[0]
        self._array = array
        self._encode = encode
        self._rest = (0,) * (array.ndim - 1)
        store = array.store
        self._folder = store.root / array.path if isinstance(store, LocalStore) else None

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> ChunkWriter | None:
        """Return a writer, or None when Zarr itself has to write this array."""
        metadata = array.metadata
        whole_rows = array.chunks[1:] == array.shape[1:]
        encode = _encoder(metadata) if metadata.zarr_format == 3 and whole_rows else None
        return None if encode is None or array.shards is not None else cls(array, encode)

    def write(self, number: int, values: Any, *, flush: bool = False) -> list[Path]:
        """Replace chunk ``number``: rows ``number * rows`` and the following, all of them.

        With ``flush`` its bytes are on disk before its name is there. Returns the file that was
        written, if it is one.
        """
        data = self._encode(values)
        key = self._key(number)
        if self._folder is not None:
            _write_file(self._folder / key, data, flush=flush)
            return [self._folder / key]
        buffer = default_buffer_prototype().buffer.from_bytes(data)
        sync(self._array.store.set(f"{self._array.path}/{key}", buffer))
        return []

    @property
    def local(self) -> bool:
        """Whether chunks are files on this machine."""
        return self._folder is not None

    def is_torn(self, number: int) -> bool:
        """Whether a chunk's file is missing, or not as long as it says itself."""
        assert self._folder is not None
        return _torn(self._folder / self._key(number))

    def _key(self, number: int) -> str:
        key: str = self._array.metadata.encode_chunk_key((number, *self._rest))
        return key


def _encoder(metadata: Any) -> Encode | None:
    codecs = [codec.to_dict() for codec in metadata.codecs]
    names = [codec["name"] for codec in codecs]
    if names == ["vlen-utf8"]:  # records of earlier versions
        return _text
    if names == ["vlen-utf8", "crc32c"]:
        return lambda value: _with_checksum(_text(value))
    options = [codec.get("configuration", {}) for codec in codecs]
    if names != ["bytes", "blosc", "crc32c"] or options[0].get("endian", "little") != "little":
        return None
    blosc = options[1]
    packer = Blosc(
        cname=blosc["cname"],
        clevel=blosc["clevel"],
        shuffle=_SHUFFLES[blosc["shuffle"]],
        blocksize=blosc["blocksize"],
    )
    dtype = metadata.data_type.to_native_dtype().newbyteorder("<")

    def pack(values: NDArray[Any]) -> bytes:
        return _with_checksum(packer.encode(np.ascontiguousarray(values, dtype)))

    return pack


def _with_checksum(data: bytes) -> bytes:
    return data + struct.pack("<I", google_crc32c.value(data))


def _text(value: str) -> bytes:
    """Encode one string: the count, then length and UTF-8 (numcodecs' vlen-utf8)."""
    data = value.encode()
    return struct.pack("<II", 1, len(data)) + data


def _write_file(path: Path, data: bytes, *, flush: bool) -> None:
    """Write a file whole or not at all, under the temporary name that `sweep` knows."""
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        try:
            part.write_bytes(data)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
        if flush:
            sync_file(part)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _torn(path: Path) -> bool:
    """Read the length that Blosc's header gives, and compare it with the file's."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return True
    return len(head) < _HEAD or int.from_bytes(head[12:16], "little") + _CRC_BYTES != size


_HEAD = 16
_CRC_BYTES = 4
