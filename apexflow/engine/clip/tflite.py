"""Networks in TensorFlow Lite files that a user names, computed by OpenCV's DNN module."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.engine.models import model_digest
from apexflow.errors import ClipError

_SHOWN = 12  # digits of a digest


class Network:
    """A network that takes one square RGB image.

    One call at a time: clips that several threads of a process work on take turns.

    Parameters
    ----------
    path : str
    digest : str
        SHA-256 that the file must have; "" takes any.
    side : int
        Height and width of the image that it takes.
    sizes : sequence of int
        How many numbers its outputs have. A file with others is another model.
    name : str
        What the file is called where it is published.

    Raises
    ------
    ClipError
        The file cannot be read, is not a model, has another digest or other outputs.
    """

    def __init__(self, path: str, digest: str, side: int, sizes: Sequence[int], name: str) -> None:
        found = model_digest(path)
        if digest and found != digest:
            raise ClipError(
                f"model {path} has SHA-256 {found[:_SHOWN]}…, the recipe was made with "
                f"{digest[:_SHOWN]}…: give the file of then, or take the recipe into another store"
            )
        self._lock = threading.Lock()
        self._sizes = tuple(sizes)
        blank = np.zeros((side, side, 3), np.float32)
        try:
            # The newer engine hides all outputs but one, and is what a file in memory gets.
            with _quiet():
                self._net = cv2.dnn.readNetFromTFLite(path, cv2.dnn.ENGINE_CLASSIC)
                self._names = self._net.getUnconnectedOutLayersNames()
                shapes = [one.shape for one in self._forward(blank)]
        except cv2.error:
            raise ClipError(
                f"model {path} is damaged, or does not take an image of {side}x{side} px: "
                f"{name} is needed"
            ) from None
        if sorted(map(np.prod, shapes)) != sorted(sizes):
            raise ClipError(
                f"model {path} is another model: its outputs of an image of {side}x{side} px are "
                f"{_listed(shapes)}, and must hold {_listed(sizes)} numbers: {name} is needed"
            )

    def __call__(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Return the outputs of an image (side, side, 3), flat, in the order of ``sizes``."""
        of_size = {one.size: one.ravel() for one in self._forward(image)}
        return [of_size[size] for size in self._sizes]

    def _forward(self, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        with self._lock:
            self._net.setInput(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))
            outputs: Sequence[Any] = self._net.forward(self._names)
            # The network's own memory is written over by the next call.
            return [np.array(one, np.float32) for one in outputs]


@cache
def network(path: str, digest: str, side: int, sizes: tuple[int, ...], name: str) -> Network:
    """Return the network of a file, read once in a process."""
    return Network(path, digest, side, sizes, name)


def _listed(values: Sequence[Any]) -> str:
    return " and ".join(map(str, values))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV from writing what it then raises to standard error as well."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)
