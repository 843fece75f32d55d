"""The GPU of this machine, as a worker opens it; what can be said without one is in others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apexflow import process
from apexflow.catalog import Catalog
from apexflow.engine.clip import process_clip
from apexflow.engine.clip.cuda import Cuda
from apexflow.engine.clip.gpu_decode import DECODER
from apexflow.engine.recipe import Recipe
from apexflow.engine.run.gpus import find_gpus
from apexflow.kernels.gpu import GpuUnavailable
from apexflow.storage.checks import verify
from apexflow.storage.store import open_store

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def cuda() -> Cuda:
    try:
        return Cuda(share=0.25)
    except GpuUnavailable as error:
        pytest.skip(str(error))


def test_memory_that_is_short_makes_smaller_batches(
    cuda: Cuda, catalog: Catalog, small_recipe: Recipe
) -> None:
    import cupy

    wanted = process_clip(catalog[0], small_recipe, cuda)
    pool = cupy.get_default_memory_pool()
    limit = pool.get_limit()
    pool.free_all_blocks()
    pool.set_limit(size=pool.used_bytes() + (4 << 20))
    try:
        found = process_clip(catalog[0], small_recipe, cuda)
    finally:
        pool.set_limit(size=limit)
    assert found.device == wanted.device == cuda.name
    np.testing.assert_array_equal(found.aligned.crops, wanted.aligned.crops)
    np.testing.assert_array_equal(found.maps["hsv"], wanted.maps["hsv"])


@pytest.mark.parametrize("workers", [1, 3])
def test_a_run_on_the_gpu(
    cuda: Cuda,
    tmp_path: Path,
    catalog: Catalog,
    small_recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    monkeypatch.delenv("APEXFLOW_GPUS")
    assert find_gpus("auto")
    path = tmp_path / "s.zarr"
    summary = process(catalog, path, recipe=small_recipe, workers=workers, gpus=1, progress=False)
    assert summary.devices == {cuda.name: 5}
    store = open_store(path)
    assert verify(store) == []
    records = {record.key: record for record in store.records() if record and record.done}
    for clip in catalog:
        if clip.key in records:
            record, wanted = records[clip.key], process_clip(clip, small_recipe)
            assert record.device == cuda.name
            np.testing.assert_allclose(record.shift, wanted.aligned.shift, atol=1e-3)
            difference = store.frames(record).astype(int) - wanted.aligned.crops
            assert np.abs(difference).max() <= 1


def test_a_run_that_decodes_on_the_gpu(
    cuda: Cuda, tmp_path: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    pytest.importorskip(DECODER)
    path = tmp_path / "s.zarr"
    options = {"recipe": small_recipe, "workers": 1, "gpus": 1, "progress": False}
    process(catalog, path, gpu_decode=True, **options)
    store = open_store(path)
    assert verify(store) == []
    records = {record.key: record for record in store.records() if record and record.done}
    assert {record.decode_device for record in records.values()} == {cuda.name}
    for clip in catalog:
        if clip.key in records:
            record, wanted = records[clip.key], process_clip(clip, small_recipe)
            # Another rounding of each pixel is noise to the registration.
            np.testing.assert_allclose(record.shift, wanted.aligned.shift, atol=0.02)
            difference = store.frames(record).astype(int) - wanted.aligned.crops
            assert np.abs(difference).mean() < 1


def test_another_device_is_no_reason_to_do_a_clip_again(
    cuda: Cuda, tmp_path: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    path = tmp_path / "s.zarr"
    process(catalog, path, recipe=small_recipe, workers=0, gpus=0, progress=False)
    before = open_store(path).records()
    process(catalog, path, recipe=small_recipe, workers=1, gpus=1, progress=False)
    after = open_store(path).records()
    done = [(a, b) for a, b in zip(before, after, strict=True) if a is not None and a.done]
    assert done
    assert all(b == replace(a, device="cpu") for a, b in done)
