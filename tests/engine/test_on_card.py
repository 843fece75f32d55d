"""The card of this machine, as a worker opens it; what can be said without one is in others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apexflow import process
from apexflow.catalog import Catalog
from apexflow.engine.cards import DECODER, find_cards
from apexflow.engine.faces import make_detector
from apexflow.engine.on_card import CudaCard
from apexflow.engine.prepared import prepare_clip
from apexflow.engine.process import plan_clip, process_clip, read_template
from apexflow.engine.readers import read_samm
from apexflow.engine.recipe import Recipe
from apexflow.engine.synthetic import write_samm
from apexflow.kernels.gpu import GpuUnavailable
from apexflow.storage.store import open_store
from apexflow.storage.verify import verify

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def card() -> CudaCard:
    try:
        return CudaCard()
    except GpuUnavailable as error:
        pytest.skip(str(error))


def test_memory_that_is_short_makes_smaller_batches(
    card: CudaCard, catalog: Catalog, small_recipe: Recipe
) -> None:
    import cupy

    prepared = prepare_clip(catalog[0], small_recipe)
    assert prepared is not None
    wanted = card.compute(prepared, small_recipe)
    pool = cupy.get_default_memory_pool()
    limit = pool.get_limit()
    pool.free_all_blocks()
    pool.set_limit(size=pool.used_bytes() + (4 << 20))
    try:
        found = card.compute(prepared, small_recipe)
    finally:
        pool.set_limit(size=limit)
    np.testing.assert_array_equal(found.aligned.crops, wanted.aligned.crops)
    np.testing.assert_array_equal(found.maps["hsv"], wanted.maps["hsv"])


def test_the_face_is_the_cpus(card: CudaCard, tmp_path: Path) -> None:
    write_samm(tmp_path, subjects=2, clips=4, frames=3, size=(480, 640), faulty=False)
    recipe = Recipe.load("default")
    decided = 0
    for clip in read_samm(tmp_path):
        source, plan = plan_clip(clip, recipe)
        frame = read_template(source, plan, recipe)
        wanted = make_detector(recipe.face).detect(frame)
        found = card.find_face(frame, recipe.face)
        if found is not None:
            decided += 1
            assert [int(side) for side in found.box] == [int(side) for side in wanted.box]
            np.testing.assert_allclose(found.box, wanted.box, atol=0.005)
            np.testing.assert_allclose(found.landmarks, wanted.landmarks, atol=0.02)
    assert decided


def test_a_run_on_the_card(
    card: CudaCard,
    tmp_path: Path,
    catalog: Catalog,
    small_recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("APEXFLOW_GPUS")
    assert find_cards("auto")
    path = tmp_path / "s.zarr"
    summary = process(catalog, path, recipe=small_recipe, workers=1, gpus=1, progress=False)
    assert summary.devices == {card.name: 5}
    store = open_store(path)
    assert verify(store) == []
    records = {record.key: record for record in store.records() if record and record.done}
    for clip in catalog:
        if clip.key in records:
            record, wanted = records[clip.key], process_clip(clip, small_recipe)
            assert record.device == card.name
            np.testing.assert_allclose(record.shift, wanted.aligned.shift, atol=1e-3)
            difference = store.frames(record).astype(int) - wanted.aligned.crops
            assert np.abs(difference).max() <= 1


def test_a_run_that_decodes_on_the_card(
    card: CudaCard, tmp_path: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    pytest.importorskip(DECODER)
    path = tmp_path / "s.zarr"
    options = {"recipe": small_recipe, "workers": 1, "gpus": 1, "progress": False}
    process(catalog, path, gpu_decode=True, **options)
    store = open_store(path)
    assert verify(store) == []
    records = {record.key: record for record in store.records() if record and record.done}
    assert {record.decode_device for record in records.values()} == {card.name}
    for clip in catalog:
        if clip.key in records:
            record, wanted = records[clip.key], process_clip(clip, small_recipe)
            # Another rounding of each pixel is noise to the registration.
            np.testing.assert_allclose(record.shift, wanted.aligned.shift, atol=0.02)
            difference = store.frames(record).astype(int) - wanted.aligned.crops
            assert np.abs(difference).mean() < 1


def test_another_device_is_no_reason_to_do_a_clip_again(
    card: CudaCard, tmp_path: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    path = tmp_path / "s.zarr"
    process(catalog, path, recipe=small_recipe, workers=0, gpus=0, progress=False)
    before = open_store(path).records()
    process(catalog, path, recipe=small_recipe, workers=1, gpus=1, progress=False)
    after = open_store(path).records()
    done = [(a, b) for a, b in zip(before, after, strict=True) if a is not None and a.done]
    assert done
    assert all(b == replace(a, device="cpu") for a, b in done)
