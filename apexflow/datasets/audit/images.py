"""Sizes of images from their headers, and whether a file is whole."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from PIL import Image

_ENDS = {".jpg": b"\xff\xd9", ".jpeg": b"\xff\xd9", ".png": b"IEND"}
_TAIL = 64  # bytes; cameras pad behind the end marker


def header_size(path: Path) -> tuple[int, int]:
    """Return (width, height) from an image's header, without decoding it.

    Raises `ValueError` with the reason when the header cannot be read or the file ends
    before the image does.
    """
    with _opened(path) as image:
        size: tuple[int, int] = image.size
    _refuse_cut(path)
    return size


def decoded_size(path: Path) -> tuple[int, int]:
    """Return (width, height) of an image after decoding all of it.

    Raises `ValueError` with the reason when it cannot be decoded.
    """
    with _opened(path) as image:
        try:
            image.load()
        except Exception as error:  # the decoders raise what they like
            raise ValueError(f"cannot be decoded ({error})") from None
        size: tuple[int, int] = image.size
    return size


def _opened(path: Path) -> Image.Image:
    try:
        if not path.stat().st_size:
            raise ValueError("the file is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path)
    except ValueError:
        raise
    except Exception as error:  # damaged headers raise what the format's plug-in likes
        raise ValueError(f"no image header ({type(error).__name__})") from None


def _refuse_cut(path: Path) -> None:
    end = _ENDS.get(path.suffix.lower())
    if end is None:
        return
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(-min(_TAIL, file.tell()), os.SEEK_END)
        if end not in file.read():
            raise ValueError("the file is cut off: no end marker")
