"""Checksums of what a store holds, and what a damaged part is called."""

from __future__ import annotations

from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray


def crc32c(values: NDArray[Any]) -> int:
    """Return the CRC-32C of an array's bytes, as commit records hold it."""
    return int(google_crc32c.value(np.ascontiguousarray(values).tobytes()))


def column_digest(values: NDArray[Any]) -> int:
    """Return the CRC-32C of a column: of the bytes of numbers, of texts one after another."""
    if values.dtype.kind in "fiu":
        return crc32c(values)
    return int(google_crc32c.value("\0".join(values.tolist()).encode()))


def first_line(error: Exception) -> str:
    """Return the kind of an error and the first line of what it says."""
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
