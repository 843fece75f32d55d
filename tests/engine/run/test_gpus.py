"""Runs with GPUs: real worker processes, whose GPUs are made of the CPU and of trouble."""

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
from apexflow.engine.recipe import Recipe
from apexflow.engine.run import RunSummary, gpus
from apexflow.engine.run.gpus import check_gpus, deal_gpus, find_gpus
from apexflow.errors import ApexflowError
from apexflow.storage.checks import verify
from apexflow.storage.format import ClipRecord
from apexflow.storage.store import open_store
from tests.engine.run.fake_gpus import CHOSEN, FOLDER, NAME, TROUBLE
from tests.engine.run.faults import do_harm
from tests.stores import assert_same_arrays

ROOT = Path(__file__).parents[3]
Run = Callable[..., RunSummary]


@pytest.fixture(autouse=True)
def _no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(gpus.DEFAULT)


@pytest.fixture
def run(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Run with that many GPUs, which have that trouble, for one clip or for all."""

    def run_with(
        count: int,
        trouble: str = "",
        clip: str | None = None,
        backend: str = "FakeCuda",
        **options: object,
    ) -> RunSummary:
        names = tuple(map(str, range(count)))
        monkeypatch.setattr("apexflow.engine.run.find_gpus", lambda wanted: names)
        monkeypatch.setattr(gpus, "CUDA", f"tests.engine.run.fake_gpus:{backend}")
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


def test_workers_share_gpus_and_the_store_says_so(
    tmp_path: Path, reference: Path, run: Run, catalog: Catalog, small_recipe: Recipe
) -> None:
    summary = run(1, workers=2)
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


BOTH = f"{NAME} and cpu"


@pytest.mark.parametrize(
    ("trouble", "devices", "said"),
    [
        # Each clip's first step fails; after three in a row the GPU is used no more.
        ("fails", {"cpu"}, "given up after 3 failures in a row"),
        ("is full once", {NAME, BOTH}, ""),
        ("breaks", {"cpu"}, "is lost to this process"),
        ("dies once", {NAME}, "a worker died with"),
    ],
)
def test_trouble_of_a_gpu_costs_no_clip(
    tmp_path: Path,
    reference: Path,
    run: Run,
    caplog: pytest.LogCaptureFixture,
    trouble: str,
    devices: set[str],
    said: str,
) -> None:
    summary = run(1, trouble)
    assert (summary.done, len(summary.failed)) == (5, 2)
    found = assert_whole(tmp_path / "s.zarr", reference)
    assert found.total() == 5
    assert found.keys() <= devices | {BOTH}
    assert found.keys() & devices
    assert said in caplog.text
    assert caplog.text.count("given up") == (trouble == "fails")  # one warning


def test_a_clip_that_ends_every_gpus_worker_is_isolated_and_done_by_the_cpu(
    tmp_path: Path, reference: Path, run: Run, catalog: Catalog
) -> None:
    run(1, "dies", clip=catalog[0].name)
    assert_whole(tmp_path / "s.zarr", reference)
    record = open_store(tmp_path / "s.zarr").record(0)
    assert record is not None
    assert (record.clip, record.device) == (catalog[0].name, "cpu")


@pytest.mark.slow
def test_a_gpu_that_hangs_is_ended_and_the_clip_done_by_the_cpu(
    tmp_path: Path, reference: Path, run: Run, catalog: Catalog
) -> None:
    run(1, "hangs", clip=catalog[0].name, clip_timeout=12)
    assert assert_whole(tmp_path / "s.zarr", reference)["cpu"] >= 1


def test_a_clip_that_kills_its_worker_is_isolated_beside_gpus(
    tmp_path: Path, run: Run, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned = catalog[2]
    do_harm(monkeypatch, tmp_path / "site", min(poisoned.path.iterdir()).name, "segfault")
    summary = run(1)
    reasons = {failure.clip: failure.reason for failure in summary.failed}
    assert len(reasons) == 3
    assert "its process died each time, isolated too, of SIGSEGV" in reasons[str(poisoned)]
    assert summary.done == 4
    assert verify(open_store(tmp_path / "s.zarr")) == []


def test_a_gpu_that_a_worker_cannot_open_is_told_of(
    tmp_path: Path,
    reference: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(1, backend="UnavailableCuda")
    assert assert_whole(tmp_path / "s.zarr", reference) == {"cpu": 5}
    assert caplog.text.count("goes on with the CPU: CuPy finds no GPU") == 1


def test_gpus_are_dealt_out_over_workers() -> None:
    assert deal_gpus((), 2) == [None, None]
    dealt = deal_gpus(("3", "GPU-5a"), 5)
    assert [one.visible for one in dealt if one] == ["3", "GPU-5a", "3", "GPU-5a", "3"]
    shares = Counter()
    for one in dealt:
        assert one is not None
        shares[one.visible] += one.share
    assert shares == {"3": pytest.approx(1), "GPU-5a": pytest.approx(1)}


def test_more_gpus_than_workers_are_refused(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    with pytest.raises(ApexflowError, match="gpus is 2, and a GPU needs a worker of its own"):
        process(catalog, tmp_path / "s.zarr", recipe=small_recipe, gpus=2, workers=1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_gpu_that_is_not_there_is_an_error_before_anything_is_made(
    tmp_path: Path,
    catalog: Catalog,
    small_recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    monkeypatch.setattr(gpus, "_count", lambda: 0)
    path = tmp_path / "s.zarr"
    with pytest.raises(ApexflowError, match=r"gpus is 1, and "):
        process(catalog, path, recipe=small_recipe, gpus=1, workers=workers, progress=False)
    assert not path.exists()


def test_the_command_says_in_one_line_that_a_gpu_is_not_there(
    tmp_path: Path, samm_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "")
    command = [sys.executable, "-m", "apexflow", "process", "samm", str(samm_root)]
    command += ["-o", str(tmp_path / "s.zarr"), "--gpus", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("apexflow: error: gpus is 1, and this machine has no GPU (")


@pytest.mark.parametrize("wanted", ["all", "-1", -1, 1.5, True, None, ""])
def test_what_gpus_may_be(wanted: object) -> None:
    with pytest.raises(ApexflowError, match="gpus must be 'auto' or a number from 0 up"):
        check_gpus(wanted)


def test_gpus_are_named_as_this_process_sees_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gpus, "_count", lambda: 2)
    monkeypatch.setattr(gpus, "_unusable", lambda: "")
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    assert find_gpus("auto") == ("0", "1")
    monkeypatch.setenv(gpus.VISIBLE, "3, GPU-5a")
    assert find_gpus("auto") == ("3", "GPU-5a")
    assert find_gpus("1") == ("3",)
    with pytest.raises(ApexflowError, match=r"has 2 GPUs .*'3, GPU-5a'"):
        find_gpus(3)
    monkeypatch.setattr(gpus, "_unusable", lambda: "the driver is old")
    assert find_gpus("auto") == ()
    (said,) = caplog.records
    assert said.levelname == "WARNING"
    assert said.getMessage() == "2 GPUs are not used: the driver is old"
    with pytest.raises(ApexflowError, match="the driver is old"):
        find_gpus(2)
    monkeypatch.setattr(gpus, "_unusable", lambda: "")
    monkeypatch.setenv(gpus.DEFAULT, "1")
    assert find_gpus("auto") == ("3",)


COUNTING = """
import sys
from apexflow.engine.run import gpus
gpus.find_gpus(0)
if gpus._count() == 0:
    assert gpus.find_gpus("auto") == ()
    assert "cupy" not in sys.modules
"""


def test_without_a_gpu_cupy_is_not_imported() -> None:
    subprocess.run([sys.executable, "-c", COUNTING], check=True)


def test_auto_without_a_gpu_is_a_run_on_the_cpu(
    tmp_path: Path,
    reference: Path,
    catalog: Catalog,
    small_recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpus, "_count", lambda: 0)
    path = tmp_path / "s.zarr"
    process(catalog, path, recipe=small_recipe, gpus="auto", workers=2, progress=False)
    assert_same_arrays(reference, path)


def test_a_record_of_a_time_before_gpus_is_read() -> None:
    record = ClipRecord(dataset="d", subject="s", clip="c", status="done", device="cpu")
    text = record.to_json()
    for name in ("device", "face_device", "decode_device"):
        text = text.replace(f', "{name}": "{getattr(record, name)}"', "")
    assert "device" not in text
    assert ClipRecord.from_json(text) == replace(record, device="")
