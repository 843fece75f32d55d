"""Devices for the GPU implementations: the shim everywhere, a GPU where there is one."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from apexflow.kernels import gpu
from apexflow.kernels.gpu import Device, GpuUnavailable, cuda_device
from tests.conftest import ADDRESSES
from tests.kernels.cuda.build import ShimDevice


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "addresses: a small case that also runs under AddressSanitizer"
    )


@pytest.fixture(scope="session", name="gpu")
def real_gpu() -> Device:
    """The current GPU; a test that asks for it is marked ``gpu``."""
    try:
        device = cuda_device()
    except GpuUnavailable as error:
        pytest.skip(str(error))
    if os.environ.get(ADDRESSES) == "1":
        # Within a block of CuPy's pool a sanitizer sees no bounds between arrays.
        device.xp.cuda.set_allocator(None)
    return device


@pytest.fixture(scope="session", params=["shim", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Device:
    """Both, one after the other: one body of a test serves both."""
    return request.getfixturevalue(request.param)


class FakeArray(np.ndarray):
    """What the dispatch takes for a CuPy array where `on_shim` is."""


@pytest.fixture
def on_shim(shim: ShimDevice, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], FakeArray]:
    """Take arrays made by this function for CuPy's, and the shim for the GPU."""
    cupy = SimpleNamespace(
        ndarray=FakeArray,
        is_available=lambda: True,
        cuda=SimpleNamespace(Device=lambda: SimpleNamespace(id=0)),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(gpu, "_card", lambda number: shim)
    return lambda array: np.array(array).view(FakeArray)
