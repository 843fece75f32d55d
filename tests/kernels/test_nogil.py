"""No kernel holds the GIL."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from numba.core.dispatcher import Dispatcher

import apexflow.kernels


def compiled_functions() -> Iterator[tuple[str, Dispatcher]]:
    for module in pkgutil.walk_packages(apexflow.kernels.__path__, "apexflow.kernels."):
        try:
            members = vars(importlib.import_module(module.name))
        except ImportError:  # a module for a GPU, on a machine without its library
            continue
        for name, member in members.items():
            if isinstance(member, Dispatcher) and member.__module__ == module.name:
                yield f"{module.name}.{name}", member


FUNCTIONS = dict(compiled_functions())


def test_there_are_kernels():
    assert {name.split(".")[2] for name in FUNCTIONS} >= {
        "template",
        "flow_farneback",
        "flow_tvl1",
        "flow_clg",
        "light",
        "encode",
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_kernel_holds_the_gil(name):
    assert FUNCTIONS[name].targetoptions.get("nogil") is True
