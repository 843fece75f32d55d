"""What the numbers of a feature vector are: axes with a name for each place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any


@dataclass(frozen=True, slots=True)
class Parts:
    """The axes of a feature vector, the last one running fastest.

    ``vector.reshape(parts.shape)`` has one axis for each of them.

    Attributes
    ----------
    axes : tuple of (name, labels)

    Examples
    --------
    >>> parts = Parts.of(row=2, plane=("xy", "xt", "yt"))
    >>> parts.shape, parts.names[:4]
    ((2, 3), ('row 0, plane xy', 'row 0, plane xt', 'row 0, plane yt', 'row 1, plane xy'))
    """

    axes: tuple[tuple[str, tuple[str, ...]], ...]

    @classmethod
    def of(cls, **axes: int | Iterable[str]) -> Parts:
        """Return the parts with these axes; a number counts its places from 0."""
        return cls(
            tuple(
                (name, tuple(map(str, range(places) if isinstance(places, int) else places)))
                for name, places in axes.items()
            )
        )

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(labels) for _, labels in self.axes)

    @property
    def names(self) -> tuple[str, ...]:
        """What each number of the vector is called."""
        named = ([f"{name} {label}" for label in labels] for name, labels in self.axes)
        return tuple(map(", ".join, product(*named)))

    def __len__(self) -> int:
        return prod(self.shape)

    def to_dict(self) -> dict[str, list[str]]:
        """Return plain JSON values; `from_dict` reads them."""
        return {name: list(labels) for name, labels in self.axes}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Parts:
        return cls.of(**values)
