"""A device whose arrays mix with NumPy's as little as CuPy's do."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.gpu import Device, Kernel


class StrictArray(np.ndarray):
    """An array that takes part in no operation with a plain one, as CuPy's do not."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        _refuse_plain(inputs)
        _refuse_plain(options.get("out", ()))
        inputs = tuple(_plain(value) for value in inputs)
        if "out" in options:
            options["out"] = tuple(_plain(value) for value in options["out"])
        return _strict(getattr(ufunc, method)(*inputs, **options))

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        _refuse_plain([*args, *options.values()])
        return _strict(super().__array_function__(function, types, args, options))

    def __setitem__(self, key: Any, value: Any) -> None:
        _refuse_plain([value])
        super().__setitem__(key, value)


class StrictModule:
    """NumPy under the rules of CuPy: what it makes is strict, and it takes nothing plain."""

    ndarray = StrictArray
    _TAKES_PLAIN = ("array", "asarray", "ascontiguousarray")

    def __init__(self, module: Any = np) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)
        if isinstance(found, type) or not callable(found):
            return StrictModule(found) if name == "fft" else found

        def call(*args: Any, **options: Any) -> Any:
            if name not in self._TAKES_PLAIN:
                _refuse_plain([*args, *options.values()])
            elif name == "ascontiguousarray":
                _refuse_plain(args[:1])
            return _strict(found(*map(_plain, args), **options))

        return call


class StrictDevice:
    """Another device with strict arrays."""

    def __init__(self, device: Device) -> None:
        self.xp: Any = StrictModule()
        self._device = device

    def kernel(self, source: str, name: str) -> Kernel:
        return self._device.kernel(source, name)

    def free_bytes(self) -> int:
        return self._device.free_bytes()

    def to_host(self, array: Any) -> NDArray[Any]:
        assert isinstance(array, StrictArray)
        return np.array(array.view(np.ndarray))


def _refuse_plain(values: Any) -> None:
    for value in values:
        if isinstance(value, list | tuple):
            _refuse_plain(value)
        elif type(value) is np.ndarray and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value.view(np.ndarray) if isinstance(value, StrictArray) else value


def _strict(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_strict, value))
    # A reduction of CuPy's is an array of no dimension.
    return (
        np.asarray(value).view(StrictArray) if isinstance(value, np.ndarray | np.generic) else value
    )
