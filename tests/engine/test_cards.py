"""Runs with cards: real worker processes, whose cards are made of the CPU and of trouble."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from apexflow import process
from apexflow.catalog import Catalog
from apexflow.engine import cards
from apexflow.engine.cards import CardPlace, check_gpus, find_cards
from apexflow.engine.readers import read_samm
from apexflow.engine.recipe import Recipe
from apexflow.engine.run import RunSummary
from apexflow.errors import ApexflowError
from apexflow.storage.format import ClipRecord
from apexflow.storage.store import open_store
from apexflow.storage.verify import verify
from tests.engine.fake_cards import CHOSEN, FACE, FOLDER, NAME, TROUBLE
from tests.engine.faults import do_harm
from tests.stores import assert_same_arrays

ROOT = Path(__file__).parents[2]
Run = Callable[..., RunSummary]


@pytest.fixture(scope="module")
def reference(
    tmp_path_factory: pytest.TempPathFactory, samm_root: Path, small_recipe: Recipe
) -> Path:
    path = tmp_path_factory.mktemp("reference") / "samm.zarr"
    process(read_samm(samm_root), path, recipe=small_recipe, workers=0, progress=False)
    return path


@pytest.fixture(autouse=True)
def _no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cards.DEFAULT)


@pytest.fixture
def run(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Run with so many cards, which have that trouble, for one clip or for all."""

    def run_with(
        count: int, trouble: str = "", clip: str | None = None, **options: object
    ) -> RunSummary:
        places = [CardPlace(str(i), "tests.engine.fake_cards:FakeCard") for i in range(count)]
        monkeypatch.setattr("apexflow.engine.run.find_cards", lambda gpus: tuple(places))
        monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
        monkeypatch.setenv(TROUBLE, trouble)
        monkeypatch.setenv(FOLDER, str(tmp_path))
        if clip is not None:
            monkeypatch.setenv(CHOSEN, clip)
        given = {"recipe": small_recipe, "workers": 1, "progress": False} | options
        return process(catalog, tmp_path / "s.zarr", **given)

    return run_with


def assert_whole(path: Path, reference: Path) -> Counter[str]:
    """Fail unless a store is the reference's in all but what computed it; return the devices."""
    assert_same_arrays(reference, path, but={"clips/record"})
    found, wanted = open_store(path), open_store(reference)
    assert verify(found) == []
    devices = Counter()
    for one, two in zip(found.records(), wanted.records(), strict=True):
        assert one is not None
        assert two is not None
        assert replace(one, device=two.device) == two
        if one.done:
            devices[one.device] += 1
    return devices


def test_clips_go_through_cards_and_the_store_says_so(
    tmp_path: Path, reference: Path, run: Run, catalog: Catalog, small_recipe: Recipe
) -> None:
    summary = run(2)
    assert (summary.done, len(summary.failed), summary.devices) == (5, 2, {NAME: 5})
    assert f"5 clips on {NAME}" in str(summary)
    path = tmp_path / "s.zarr"
    assert assert_whole(path, reference) == {NAME: 5}
    info = subprocess.run(
        [sys.executable, "-m", "apexflow", "info", str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert f"computed  {NAME} 5" in info.stdout
    # Another device is no reason to do a clip again.
    again = process(catalog, path, recipe=small_recipe, workers=0, gpus=0, progress=False)
    assert (again.done, again.skipped) == (0, 5)


@pytest.mark.parametrize(
    ("count", "trouble", "on_card", "said"),
    [
        (2, "dies once", 4, "its worker died"),
        (1, "dies", 0, "its worker died"),
        (1, "fails", 0, "given up after 3 failures"),
        (1, "is full once", 4, "MemoryError in _trouble"),
        (1, "breaks", 0, "illegal memory access"),
    ],
)
def test_trouble_of_a_card_costs_no_clip(
    tmp_path: Path,
    reference: Path,
    run: Run,
    caplog: pytest.LogCaptureFixture,
    count: int,
    trouble: str,
    on_card: int,
    said: str,
) -> None:
    summary = run(count, trouble)
    assert (summary.done, len(summary.failed)) == (5, 2)
    devices = assert_whole(tmp_path / "s.zarr", reference)
    assert devices.total() == 5
    assert devices[NAME] >= on_card
    assert said in caplog.text


def test_a_clip_that_ends_every_card_is_done_by_the_cpu(
    tmp_path: Path, reference: Path, run: Run, catalog: Catalog
) -> None:
    run(2, "dies", clip=catalog[0].name)
    assert_whole(tmp_path / "s.zarr", reference)
    record = open_store(tmp_path / "s.zarr").record(0)
    assert record is not None
    assert (record.clip, record.device) == (catalog[0].name, "cpu")


@pytest.mark.slow
def test_a_card_that_hangs_is_ended_and_the_clip_done_by_the_cpu(
    tmp_path: Path, reference: Path, run: Run, catalog: Catalog
) -> None:
    run(1, "hangs", clip=catalog[0].name, clip_timeout=12)
    assert assert_whole(tmp_path / "s.zarr", reference)["cpu"] >= 1


def test_a_clip_that_kills_its_cpu_worker_is_isolated_beside_cards(
    tmp_path: Path, run: Run, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned = catalog[2]
    do_harm(monkeypatch, tmp_path / "site", min(poisoned.path.iterdir()).name, "segfault")
    summary = run(1)
    reasons = {failure.clip: failure.reason for failure in summary.failed}
    assert len(reasons) == 3
    assert "its process died each time, alone of SIGSEGV" in reasons[str(poisoned)]
    assert summary.done == 4
    assert verify(open_store(tmp_path / "s.zarr")) == []


def test_a_face_found_by_a_card(tmp_path: Path, run: Run, small_recipe: Recipe) -> None:
    values = small_recipe.to_dict()
    values["face"]["detector"] = "mtcnn"
    summary = run(1, recipe=Recipe.from_dict(values))
    assert summary.devices == {NAME: 5}
    records = [record for record in open_store(tmp_path / "s.zarr").records() if record]
    for record in records:
        if record.done:
            assert (record.face_device, record.box) == (NAME, (60, 30, 140, 130))
            assert record.landmarks == FACE.landmarks


@pytest.mark.parametrize("workers", [0, 1])
def test_a_card_that_is_not_there_is_an_error_before_anything_is_made(
    tmp_path: Path,
    catalog: Catalog,
    small_recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    monkeypatch.setattr(cards, "_count", lambda: 0)
    path = tmp_path / "s.zarr"
    with pytest.raises(ApexflowError, match=r"gpus is 1, and "):
        process(catalog, path, recipe=small_recipe, gpus=1, workers=workers, progress=False)
    assert not path.exists()


def test_the_command_says_in_one_line_that_a_card_is_not_there(
    tmp_path: Path, samm_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(cards.VISIBLE, "")
    command = [sys.executable, "-m", "apexflow", "process", "samm", str(samm_root)]
    command += ["-o", str(tmp_path / "s.zarr"), "--gpus", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("apexflow: error: gpus is 1, and this machine has no CUDA card (")


@pytest.mark.parametrize("gpus", ["all", "-1", -1, 1.5, True, None, ""])
def test_what_gpus_may_be(gpus: object) -> None:
    with pytest.raises(ApexflowError, match="gpus must be 'auto' or a number from 0 up"):
        check_gpus(gpus)


def test_cards_are_named_as_this_process_sees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "_count", lambda: 2)
    monkeypatch.setattr(cards, "_unusable", lambda: "")
    monkeypatch.delenv(cards.VISIBLE, raising=False)
    assert [place.visible for place in find_cards("auto")] == ["0", "1"]
    monkeypatch.setenv(cards.VISIBLE, "3, GPU-5a")
    assert [place.visible for place in find_cards("auto")] == ["3", "GPU-5a"]
    assert [place.visible for place in find_cards("1")] == ["3"]
    with pytest.raises(ApexflowError, match=r"has 2 CUDA cards .*'3, GPU-5a'"):
        find_cards(3)
    monkeypatch.setattr(cards, "_unusable", lambda: "the driver is old")
    assert find_cards("auto") == ()
    with pytest.raises(ApexflowError, match="the driver is old"):
        find_cards(2)
    monkeypatch.setattr(cards, "_unusable", lambda: "")
    monkeypatch.setenv(cards.DEFAULT, "1")
    assert [place.visible for place in find_cards("auto")] == ["3"]


COUNTING = """
import sys
from apexflow.engine import cards
cards.find_cards(0)
if cards._count() == 0:
    assert cards.find_cards("auto") == ()
    assert "cupy" not in sys.modules
"""


def test_without_a_card_cupy_is_not_imported() -> None:
    subprocess.run([sys.executable, "-c", COUNTING], check=True)


def test_auto_without_a_card_is_a_run_on_the_cpu(
    tmp_path: Path,
    reference: Path,
    catalog: Catalog,
    small_recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cards, "_count", lambda: 0)
    path = tmp_path / "s.zarr"
    process(catalog, path, recipe=small_recipe, gpus="auto", workers=2, progress=False)
    assert_same_arrays(reference, path)


def test_a_record_of_a_time_before_cards_is_read() -> None:
    record = ClipRecord(dataset="d", subject="s", clip="c", status="done", device="cpu")
    text = record.to_json()
    for name in ("device", "face_device", "decode_device"):
        text = text.replace(f', "{name}": "{getattr(record, name)}"', "")
    assert "device" not in text
    assert ClipRecord.from_json(text) == replace(record, device="")
