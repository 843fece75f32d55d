from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apexflow.storage import columns
from apexflow.storage.store import Store
from tests.storage.stores import make_store, random_clips


def table(store: Store) -> dict[str, list[object]]:
    names = [f"{group}/{name}" for group in ("clips", "frames") for name in store.group[group]]
    plain = [name for name in names if name not in ("clips/record", "frames/image")]
    return {name: np.asarray(store.array(name)[...]).tolist() for name in plain}


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_columns_do_not_depend_on_how_many_rows_are_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    store = make_store(tmp_path / "s.zarr", random_clips(7, frames=True))
    wanted = table(store)
    assert any(np.isfinite(np.array(wanted["frames/shift"])).ravel())
    monkeypatch.setattr(columns, "COLUMN_CHUNK", rows)
    store.array("frames/score")[:] = 7.0  # what was there before does not stay
    store.finalize()
    np.testing.assert_equal(table(store), wanted)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), min_size=1), st.integers(1, 20))
def test_a_chunk_is_kept_until_the_last_clip_that_has_rows_in_it(
    spans: list[tuple[int, int]], rows: int
) -> None:
    starts, lengths = np.array(spans).T
    users: dict[int, int] = {}
    for clip, (start, length) in enumerate(spans):
        users |= dict.fromkeys({row // rows for row in range(start, start + length)}, clip)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "COLUMN_CHUNK", rows)
        found = columns._last_clips(100, starts, starts + lengths)
    assert found.tolist() == [users.get(chunk, -1) for chunk in range(100)]
