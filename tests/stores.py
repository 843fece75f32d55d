"""Comparing stores."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import zarr

# Seconds differ from run to run; every other array must not.
NOT_COMPARED = {"clips/timings"}


def assert_same_arrays(first: str | Path, second: str | Path, *, but: Collection[str] = ()) -> None:
    """Fail unless both stores hold the same arrays with the same bytes, ``but`` for some."""
    one, two = _arrays(first), _arrays(second)
    assert sorted(one) == sorted(two)
    for path, array in one.items():
        if path in NOT_COMPARED or path in but:
            continue
        a, b = np.asarray(array[...]), np.asarray(two[path][...])
        assert a.dtype == b.dtype, path
        if a.dtype.kind in "T":
            assert a.tolist() == b.tolist(), path
        else:
            assert a.tobytes() == b.tobytes(), path


def _arrays(path: str | Path) -> dict[str, zarr.Array]:
    group = zarr.open_group(str(path), mode="r")
    return {
        name: node for name, node in group.members(max_depth=None) if isinstance(node, zarr.Array)
    }
