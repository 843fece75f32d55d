"""The seam: batches, where arrays live, and what is said without a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apexflow.kernels.gpu import GpuUnavailable, cuda_device, in_batches, is_device_array, on_device
from tests.kernels.cuda.build import ShimDevice


@given(count=st.integers(0, 40), each=st.integers(1, 50), free=st.integers(0, 200), fits=st.data())
def test_batches_cover_all_items_in_order_whatever_fits(
    count: int, each: int, free: int, fits: st.DataObject
) -> None:
    most = fits.draw(st.integers(1, 40))
    called: list[int] = []

    def work(part: slice) -> list[int]:
        called.append(part.stop - part.start)
        if part.stop - part.start > most:
            raise MemoryError
        return list(range(count)[part])

    results = in_batches(work, count, each, ShimDevice(Path(), free=free))
    assert [item for result in results for item in result] == list(range(count))
    assert max(called, default=0) <= max(1, free // each)
    assert all(results)


def test_one_item_that_does_not_fit_is_told() -> None:
    def work(part: slice) -> None:
        raise MemoryError(f"{part.stop - part.start}")

    with pytest.raises(MemoryError, match=r"^1$"):
        in_batches(work, 10, 1, ShimDevice(Path()))


def test_no_array_is_moved_unasked(on_shim: Any) -> None:
    here, there = np.zeros(3), on_shim(np.zeros(3))
    assert not on_device(prev=here, next=here, other=None)
    assert on_device(prev=there, next=there, other=[1])
    assert is_device_array(there)
    assert not is_device_array(here)
    with pytest.raises(TypeError, match=r"next must be a CuPy array, as prev is"):
        on_device(prev=there, next=here)


WITHOUT_CUPY = """
import sys
sys.modules["cupy"] = None
import numpy as np
from apexflow.kernels import optical_strain
from apexflow.kernels.gpu import GpuUnavailable, cuda_device
optical_strain(np.zeros((4, 4, 2), np.float32))
try:
    cuda_device()
except GpuUnavailable as error:
    print(error)
"""


def test_without_cupy_nothing_changes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CUPY], capture_output=True, text=True, check=True
    )
    assert done.stdout == "CuPy is not installed: pip install 'apexflow[gpu]'.\n"


def test_cupy_is_not_imported_by_the_kernels() -> None:
    code = (
        "import sys, numpy, apexflow.kernels as k;"
        "k.make_maps(numpy.zeros((2, 8, 8), 'f4'), 'hsv', size=(4, 4));"
        "print('cupy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_no_card_is_said_clearly() -> None:
    cupy = pytest.importorskip("cupy")
    if cupy.is_available():
        assert cuda_device().free_bytes() > 0
    else:
        with pytest.raises(GpuUnavailable, match="CuPy finds no GPU"):
            cuda_device()
