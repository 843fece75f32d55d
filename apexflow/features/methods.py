"""The methods by name: what each reads of a store, and its options."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict, fields
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from apexflow.errors import ApexflowError
from apexflow.features.parts import Parts

Reads = Literal["frames", "flow", "regions"]
"""Frames (T, H, W); the flow of each pair alone (H, W, 2); flow of all pairs, and boxes."""


class Method(Protocol):
    """A method with its options, checked: a frozen dataclass."""

    reads: ClassVar[Reads]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def parts(self) -> Parts: ...
    def __call__(self, *values: Any) -> NDArray[np.float32]: ...


# name: (module, class)
METHODS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "lbp-top": ("lbp", "LbpTop"),
        "hog-top": ("hog", "HogTop"),
        "bi-woof": ("oriented_flow", "BiWoof"),
        "hoof": ("oriented_flow", "Hoof"),
        "mdmo": ("main_direction", "Mdmo"),
    }
)


def make_method(name: str, options: Mapping[str, Any]) -> Method:
    """Return a method with these options.

    Raises `ApexflowError` when there is no such method or option, or a value is not allowed.
    """
    if name not in METHODS:
        raise ApexflowError(f"method must be one of {', '.join(METHODS)}. Got {name!r}.")
    module, found = METHODS[name]
    kind = getattr(importlib.import_module(f"apexflow.features.{module}"), found)
    known = [one.name for one in fields(kind)]
    for option in options:
        if option not in known:
            raise ApexflowError(f"{name} has no option {option}; it has {', '.join(known)}")
    try:
        method: Method = kind(**options)
    except ValueError as error:
        raise ApexflowError(f"{name}: {error}") from None
    return method


def options_of(method: Method) -> dict[str, Any]:
    """Return a method's options as plain JSON values."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(method).items()
    }
