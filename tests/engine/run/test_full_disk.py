"""A full disk ends every phase in one line and status 2; nothing is lost, and it goes on later."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from apexflow import process
from apexflow.cli import main
from apexflow.datasets import read_samm
from apexflow.engine.recipe import Recipe
from apexflow.storage.checks import verify
from apexflow.storage.compact import compact
from apexflow.storage.store import open_store
from apexflow.storage.target import store_exists
from tests.storage.stores import make_store
from tests.stores import assert_same_arrays
from tests.training.motion import motion_clips


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A file system of so many bytes, which may be given another size later."""
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    place = tmp_path / "disk"
    place.mkdir()
    if mount is None or unmount is None or os.name != "posix" or os.geteuid() != 0:
        pytest.skip("a small file system can be mounted by root alone")

    def sized(size: int) -> Path:
        options = f"size={size}" + ",remount" * os.path.ismount(place)
        command = [mount, "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode != 0:
            pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
        return place

    yield sized
    if os.path.ismount(place):
        subprocess.run([unmount, "-l", str(place)], check=True)


def used(place: Path) -> int:
    """Return the bytes that a file system holds."""
    found = os.statvfs(place)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "apexflow", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


Here = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Run a command in this process, for speed."""

    def run_here(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = ["apexflow", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        return subprocess.CompletedProcess(command, status, *capsys.readouterr())

    return run_here


def assert_one_line(
    ended: subprocess.CompletedProcess[str], reason: str = "No space left on device"
) -> None:
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.strip().splitlines()
    assert line.startswith("apexflow: error: cannot ")
    assert reason in line


# From where nothing fits, over each phase of a run, to where nearly all does.
SIZES = [0, 4, 16, 40, 80, 120, 160, 200, 240, 280, 320]


def test_a_run_at_every_size_of_disk(
    disk: Callable[[int], Path],
    reference: Path,
    samm_root: Path,
    recipe_file: Callable[[], Path],
    small_recipe: Recipe,
    here: Here,
) -> None:
    """In one process for speed: every phase from the creation to the last column."""
    place = disk(4096)
    options = ("process", "samm", samm_root, "--recipe", recipe_file(), "--quiet")
    full = 0
    for pages in SIZES:
        disk(max(1, pages) * 4096)
        ended = here(*options, "--workers", "0", "-o", place / "s.zarr")
        if ended.returncode == 1:  # it fits: two clips of the data set are faulty
            break
        full += 1
        assert_one_line(ended)
        if (place / "s.zarr" / "zarr.json").exists() and pages % 3 == 0:
            verify_what_is_there(place / "s.zarr")
    assert full >= 5
    disk(64 << 20)
    process(read_samm(samm_root), place / "s.zarr", recipe=small_recipe, workers=0, progress=False)
    assert verify(place / "s.zarr") == []
    assert_same_arrays(reference, place / "s.zarr")
    assert list(place.rglob("*.partial")) == []


def verify_what_is_there(path: Path) -> None:
    if store_exists(path):  # not one whose making was cut short
        assert verify(path) == []


def test_workers_on_a_full_disk(
    disk: Callable[[int], Path], samm_root: Path, recipe_file: Callable[[], Path]
) -> None:
    place = disk(130 * 4096)
    options = ("process", "samm", samm_root, "--recipe", recipe_file(), "--quiet")
    assert_one_line(run(*options, "--workers", "2", "-o", place / "s.zarr"))


def test_compact_expand_export_and_report(
    disk: Callable[[int], Path],
    reference: Path,
    samm_root: Path,
    recipe_file: Callable[[], Path],
    small_recipe: Recipe,
) -> None:
    place = disk(64 << 20)
    path = Path(shutil.copytree(reference, place / "s.zarr"))
    disk(used(place) + 3 * 4096)
    for command in (
        ("compact", path, "--chunk-mb", "0.05"),
        ("export", path, "--maps", place / "m", "--normalized", place / "n", "--gif", place / "g"),
        ("report", path, "-o", place / "r.html"),
    ):
        assert_one_line(run(*command))
        assert verify(path) == []
        for left in ("m", "n", "g"):
            shutil.rmtree(place / left, ignore_errors=True)
        (place / "r.html").unlink(missing_ok=True)
    disk(64 << 20)
    compact(path)
    disk(used(place) + 3 * 4096)
    # A changed input makes the run bring the small chunks back.
    root = shutil.copytree(samm_root, place.parent / "samm")
    os.utime(next((root / "006").rglob("*.jpg")), ns=(1, 1))
    options = ("process", "samm", root, "--recipe", recipe_file(), "--quiet", "--workers", "0")
    assert_one_line(run(*options, "-o", path))
    assert verify(path) == []
    disk(64 << 20)
    process(read_samm(root), path, recipe=small_recipe, workers=0, progress=False)
    assert verify(path) == []
    assert open_store(path).complete


@pytest.mark.slow
def test_a_quota_in_every_phase(
    tmp_path: Path,
    reference: Path,
    samm_root: Path,
    recipe_file: Callable[[], Path],
    small_recipe: Recipe,
) -> None:
    """A real quota (EDQUOT) of a Btrfs file system, where one can be made."""
    tools = {name: shutil.which(name) for name in ("mkfs.btrfs", "btrfs", "mount", "umount")}
    if None in tools.values() or os.geteuid() != 0:
        pytest.skip("a quota can be set by root alone, with btrfs-progs")
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(128 << 20)
    tool = partial(subprocess.run, capture_output=True, check=True)
    tool([tools["mkfs.btrfs"], "-q", image])
    if subprocess.run([tools["mount"], "-o", "loop", image, place], check=False).returncode:
        pytest.skip("no Btrfs file system can be mounted here")
    try:
        tool([tools["btrfs"], "quota", "enable", place])
        options = ("process", "samm", samm_root, "--recipe", recipe_file(), "--quiet")
        ends = []
        for limit in ("64K", "300K", "700K"):
            tool([tools["btrfs"], "qgroup", "limit", limit, place])
            ends.append(run(*options, "--workers", "0", "-o", place / "s.zarr"))
            os.sync()
        full = [ended for ended in ends if ended.returncode == 2]
        assert len(full) >= 2
        for ended in full:
            assert_one_line(ended, "Disk quota exceeded")
        tool([tools["btrfs"], "qgroup", "limit", "none", place])
        process(
            read_samm(samm_root), place / "s.zarr", recipe=small_recipe, workers=0, progress=False
        )
        assert verify(place / "s.zarr") == []
        assert_same_arrays(reference, place / "s.zarr")
        os.sync()
        tool([tools["btrfs"], "qgroup", "limit", "64K", place])  # nothing more fits in
        for command in (
            ("export", place / "s.zarr", "--normalized", place / "n"),
            ("report", place / "s.zarr", "-o", place / "r.html"),
            ("compact", place / "s.zarr"),
        ):
            assert_one_line(run(*command), "Disk quota exceeded")
        assert verify(place / "s.zarr") == []
    finally:
        tool([tools["umount"], "-l", place])


@pytest.mark.skipif(os.name != "posix", reason="limits of a process are POSIX's")
def test_a_limit_on_the_size_of_files(
    tmp_path: Path,
    reference: Path,
    samm_root: Path,
    recipe_file: Callable[[], Path],
    small_recipe: Recipe,
) -> None:
    """Another errno (EFBIG) than a full disk's, where no quota can be made."""
    path = tmp_path / "s.zarr"
    command = [sys.executable, "-m", "apexflow", "process", "samm", str(samm_root), "--quiet"]
    command += ["--recipe", str(recipe_file()), "--workers", "0", "-o", str(path)]
    limited = ["bash", "-c", 'ulimit -f 4; exec "$@"', "limited", *command]  # KiB
    ended = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert_one_line(ended, "File too large")
    process(read_samm(samm_root), path, recipe=small_recipe, workers=0, progress=False)
    assert verify(path) == []
    assert_same_arrays(reference, path)


def test_training_on_a_full_disk(disk: Callable[[int], Path], tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", motion_clips(3, 2))
    options = ("train", tmp_path / "s.zarr", "--model", "ststnet", "--quiet", "--device", "cpu")
    options += ("--flow", "onset-apex", "--encode", "uv-strain", "--epochs", "1")
    place = disk(4096)
    for pages in (1, 20):
        disk(pages * 4096)
        assert_one_line(run(*options, "-o", place / "out"))
    disk(64 << 20)
    ended = run(*options, "-o", place / "out")
    assert ended.returncode == 0, ended.stderr
    assert list(place.rglob("*.partial")) == []


def test_a_read_only_disk_in_every_phase(
    disk: Callable[[int], Path],
    reference: Path,
    samm_root: Path,
    recipe_file: Callable[[], Path],
    small_recipe: Recipe,
    here: Here,
) -> None:
    place = disk(64 << 20)
    path = Path(shutil.copytree(reference, place / "s.zarr"))
    changed = shutil.copytree(samm_root, place.parent / "samm")
    os.utime(next((changed / "006").rglob("*.jpg")), ns=(1, 1))
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    options = ("--recipe", recipe_file(), "--quiet", "--workers", "0")
    trained = ("--model", "ststnet", "--flow", "onset-apex", "--encode", "uv-strain")
    for command in (
        ("process", "samm", samm_root, *options, "-o", place / "new.zarr"),
        ("process", "samm", changed, *options, "-o", path),
        ("process", "samm", samm_root, *options, "--repair", "-o", path),
        ("compact", path, "--chunk-mb", "0.05"),
        ("export", path, "--maps", place / "m"),
        ("export", path, "--normalized", place / "n"),
        ("export", path, "--gif", place / "g"),
        ("report", path, "-o", place / "r.html"),
        ("info", path, "--failures", place / "f.csv"),
        ("train", path, *trained, "--quiet", "--device", "cpu", "-o", place / "out"),
    ):
        ended = here(*command)
        said = ended.stderr.splitlines()
        (line,) = [line for line in said if line.startswith("apexflow: error: ")]
        assert (ended.returncode, "Read-only file system" in line) == (2, True)
        assert "Traceback" not in ended.stderr
    # Reading does not need to write.
    assert here("info", path).returncode == here("verify", path).returncode == 0
    subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    process(read_samm(changed), path, recipe=small_recipe, workers=0, progress=False)
    assert verify(path) == []
