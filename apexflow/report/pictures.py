"""Pictures as a page holds them: data URIs, and the figures that they make up."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

# For eyes: at 75 a crop of 224x224 has about 6 KB, and no block can be seen.
JPEG_QUALITY = 75


_NOTHING = Markup()


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture with the text beneath it.

    Attributes
    ----------
    caption : str
    uri : str
        The picture.
    alt : str
        What is seen, for who does not see it.
    enlarged : bool
        Whether its pixels are to be shown as squares.
    overlay : Markup
        SVG drawn over it.
    """

    caption: str
    uri: str
    alt: str
    enlarged: bool = False
    overlay: Markup = _NOTHING


@dataclass(frozen=True, slots=True)
class Figure:
    """Pictures in rows, with what they show and how good differs from bad.

    Attributes
    ----------
    title : str
    shows, good, bad : str
        Sentences.
    rows : tuple of tuple of Tile
    """

    title: str
    shows: str
    good: str
    bad: str
    rows: tuple[tuple[Tile, ...], ...]


def jpeg(image: Picture) -> bytes:
    """Return a gray (H, W) or RGB (H, W, 3) picture as a JPEG file."""
    _, data = cv2.imencode(".jpg", _bgr(image), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data.tobytes()


def jpeg_uri(image: Picture) -> str:
    """Return a picture as a JPEG in a data URI: for frames."""
    return _uri("image/jpeg", jpeg(image))


def png_uri(image: Picture) -> str:
    """Return a picture as a PNG in a data URI: for maps, whose every pixel counts."""
    _, data = cv2.imencode(".png", _bgr(image))
    return _uri("image/png", data.tobytes())


def fitted(image: Picture, side: int) -> Picture:
    """Return a picture whose longer side is ``side``: smoothly reduced, or as larger pixels."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return cv2.resize(image, size, interpolation=way)


def _bgr(image: Picture) -> Picture:
    return image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
