"""Model files that a user names: read, and known by their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

from apexflow.errors import ClipError

_KIND = slice(4, 8)  # of a flatbuffer


def model_digest(path: str | Path) -> str:
    """Return the SHA-256 of a TensorFlow Lite model.

    Raises `ClipError` when the file cannot be read, or is not one.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ClipError(
            f"model {path} cannot be read ({error.strerror or error}): give the path of a .tflite "
            f"file, one that every worker reaches"
        ) from None
    if data[_KIND] != b"TFL3":
        raise ClipError(f"model {path} is not a TensorFlow Lite file: give a .tflite file")
    return hashlib.sha256(data).hexdigest()
