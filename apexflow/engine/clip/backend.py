"""Where the steps of a clip compute: on the CPU, or on a GPU (see `cuda`).

A step is written once, against a `Backend`: it takes and gives arrays of the host, brings the
part that it works on to where the backend's arrays live, and calls kernels, which compute where
their arguments are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from apexflow.engine.clip.frames import ClipFrames

Array = Any
"""An array of a backend: NumPy's on the CPU, CuPy's on a GPU."""

_Made = TypeVar("_Made")


class Pixels(Protocol):
    """The part of a clip's frames that a backend looks at.

    Attributes
    ----------
    origin : (x, y)
        Where the part lies in the frames.
    decode_device : str
        What decodes the frames.
    """

    @property
    def origin(self) -> tuple[int, int]: ...
    @property
    def decode_device(self) -> str: ...

    def read(self, numbers: Sequence[int]) -> Array:
        """Return frames in ascending order, uint8 (n, h, w[, 3]), on the backend."""


class Backend(Protocol):
    """Where a step's arrays live, and how many items it takes at a time."""

    @property
    def name(self) -> str:
        """What the store says has computed a clip."""

    def run(self, step: Callable[..., _Made], *inputs: Any) -> tuple[_Made, str]:
        """Return ``step(*inputs, backend)``, and the name of the backend that computed it."""

    def pixels(self, frames: ClipFrames, part: tuple[slice, slice]) -> Pixels:
        """Open the pixels of a clip, of which ``part`` (rows, columns) will be looked at."""

    def put(self, array: NDArray[Any]) -> Array:
        """Bring an array of the host to the backend."""

    def batches(
        self, function: Callable[[slice], _Made], count: int, bytes_each: int
    ) -> list[_Made]:
        """Call ``function`` for slices that cover ``count`` items; return its results in order.

        ``bytes_each`` is what one item takes while the function works.
        """


class Cpu:
    """The CPU: one item at a time, so that one frame is in memory, and nothing is moved."""

    name = "cpu"

    def run(self, step: Callable[..., _Made], *inputs: Any) -> tuple[_Made, str]:
        return step(*inputs, self), self.name

    def pixels(self, frames: ClipFrames, part: tuple[slice, slice]) -> Pixels:
        return WholeFrames(frames)

    def put(self, array: NDArray[Any]) -> Array:
        return array

    def batches(
        self, function: Callable[[slice], _Made], count: int, bytes_each: int
    ) -> list[_Made]:
        return [function(slice(i, i + 1)) for i in range(count)]


CPU = Cpu()


@dataclass(frozen=True, slots=True)
class WholeFrames:
    """All of each frame: on the CPU the rest costs nothing."""

    frames: ClipFrames
    origin: tuple[int, int] = (0, 0)
    decode_device: str = CPU.name

    def read(self, numbers: Sequence[int]) -> Array:
        if len(numbers) == 1:
            return next(self.frames.read(numbers))[None]
        return np.stack(list(self.frames.read(numbers)))


@dataclass(slots=True)
class Steps:
    """The steps of one clip on a backend, and a record of what has computed them."""

    backend: Backend
    _names: set[str] = field(default_factory=set)

    def run(self, step: Callable[..., _Made], *inputs: Any) -> _Made:
        """Return ``step(*inputs, backend)``."""
        made, name = self.backend.run(step, *inputs)
        self._names.add(name)
        return made

    @property
    def device(self) -> str:
        """The names of all backends that took part."""
        return " and ".join(sorted(self._names))
