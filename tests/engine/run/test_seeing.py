"""What a user sees of a run: before it, while it goes on, after it."""

import csv
import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from apexflow import process
from apexflow.catalog import Catalog
from apexflow.engine.recipe import Recipe
from apexflow.engine.run.progress import Progress, _make_bar, in_words
from apexflow.engine.run.task import Outcome
from apexflow.engine.run.todo import forecast
from apexflow.errors import ApexflowError
from apexflow.storage.store import open_store


def cli(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "apexflow", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_forecast_is_what_then_happens(
    tmp_path: Path, catalog: Catalog, small_recipe: Recipe
) -> None:
    path = tmp_path / "s.zarr"
    before = forecast(catalog, path, recipe=small_recipe)
    assert not path.exists()
    assert (before.clips, before.frames, before.skipped, len(before.failing)) == (5, 45, 0, 2)
    sound = catalog.select(lambda clip: str(clip) not in dict(before.failing))
    files = [file for clip in sound for file in clip.path.iterdir()]
    assert before.read_bytes == sum(file.stat().st_size for file in files)
    process(catalog[:3], path, recipe=small_recipe, workers=0, progress=False)
    after = forecast(catalog, path, recipe=small_recipe)
    assert (after.clips, after.skipped) == (2, 3)
    process(catalog, path, recipe=small_recipe, workers=0, progress=False)
    store = open_store(path)
    arrays = ("frames/image", "flow/onset-apex", "maps/hsv")
    held = sum(store.array(name).nbytes_stored() for name in arrays)
    assert 0.6 * before.store_bytes < held < 1.02 * before.store_bytes
    assert forecast(catalog, path, recipe=small_recipe).clips == 0
    other = Recipe.from_dict(small_recipe.to_dict() | {"maps": {}})
    with pytest.raises(ApexflowError, match="was made with recipe"):
        forecast(catalog, path, recipe=other)


def test_dry_run_failures_and_timings_on_the_command_line(
    tmp_path: Path, samm_root: Path, recipe_file: Callable[[], Path]
) -> None:
    path, table = tmp_path / "s.zarr", tmp_path / "why.csv"
    options = ("-o", path, "--recipe", recipe_file(), "--workers", "0", "--quiet")
    dry = cli("process", "samm", samm_root, *options, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "to do    5 clips, 45 frames" in dry.stdout
    assert "failing  2 clips" in dry.stdout
    assert not path.exists()
    assert cli("process", "samm", samm_root, *options).returncode == 1
    info = cli("info", path, "--timings", "--failures", table)
    stages = dict(re.findall(r"^  (\w+) +([\d.]+) s", info.stdout, re.MULTILINE))
    assert {"decode", "align", "flow", "store"} <= set(stages)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["clip"] for row in rows} == {"028_4_1", "032_3_1"}
    assert "apex 1088 lies after offset 1079" in rows[0]["reason"]
    printed = cli("info", path, "--failures", "-").stdout
    assert list(csv.DictReader(io.StringIO(printed))) == rows


def test_progress_after_a_resumption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("apexflow.engine.run.progress.SECONDS_BETWEEN_LINES", 0.0)
    with Progress(total=4, skipped=6, show=True) as progress:
        for i in range(4):
            progress.advance(Outcome(str(i), "done", "", 5))
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["7/10", "8/10", "9/10", "10/10"]
    assert all("(6 finished before)" in line for line in lines)
    assert "left" not in lines[0]  # one clip says how long starting took, and no rate
    assert lines[-1].endswith(" 0 s left")


def test_the_first_failure_of_each_kind_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = ("apex 3 lies before onset 9", "apex 4 lies before onset 8", "no face", "a", "b")
    with Progress(total=5, skipped=0, show=True) as progress:
        for i, reason in enumerate(reasons):
            progress.advance(Outcome(f"c{i}", "failed", reason))
    told = capsys.readouterr().err.splitlines()
    assert told == [f"failed: c{i}: {reasons[i]}" for i in (0, 2, 3)]


@pytest.mark.parametrize("width", [20, 40, 200])
def test_a_bar_fits_its_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    bar = _make_bar()
    file = io.StringIO()
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=file, width=width, force_terminal=True)
    bar.add_task("clips", total=1000, completed=42, said="3 failed, 312 frames/s, 2 h 10 min left")
    console.print(bar.get_renderable())
    text = re.sub(r"\x1b\[[0-9;]*[a-zA-Z]", "", file.getvalue())
    assert [len(line) <= width for line in text.splitlines()] == [True]
    assert "42/1000" in text
    assert "\x1b[3" not in file.getvalue()  # no colour where none is wanted


@pytest.mark.parametrize(
    ("seconds", "said"), [(41.4, "41 s"), (200, "3 min"), (7800, "2 h 10 min")]
)
def test_time_left_in_words(seconds: float, said: str) -> None:
    assert in_words(seconds) == said


def test_progress_where_kernels_have_to_be_compiled(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("apexflow.engine.run.progress.SECONDS_BETWEEN_LINES", 0.0)
    with Progress(total=3, skipped=0, show=True, compiling=True) as progress:
        for status in ("failed", "done", "done"):
            progress.advance(Outcome("clip", status, "", 5))
    said, *lines = capsys.readouterr().err.splitlines()
    assert said.startswith("compiling the kernels for this machine, once")
    assert lines[0] == "failed: clip: "
    assert lines[2] == "2/3 clips, 1 failed"
    assert lines[3].endswith(" frames/s, 0 s left")
    with Progress(total=0, skipped=3, show=True, compiling=True):
        pass
    assert capsys.readouterr().err == ""


def test_dask_speaks_only_when_asked(
    tmp_path: Path, samm_root: Path, recipe_file: Callable[[], Path]
) -> None:
    options = ("--recipe", recipe_file(), "--workers", "1", "--quiet")
    quiet = cli("process", "samm", samm_root, "-o", tmp_path / "a.zarr", *options)
    assert quiet.stderr == ""
    loud = cli(
        *("process", "samm", samm_root, "-o", tmp_path / "b.zarr", *options),
        *("--log-level", "info"),
    )
    assert "distributed" in loud.stderr
