import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from apexflow.cli import _COMMANDS, cli
from apexflow.errors import ApexflowError


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def command(*arguments: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "apexflow", *map(str, arguments)]
    return subprocess.run(whole, capture_output=True, text=True, timeout=timeout, check=False)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from apexflow.cli import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'dask', 'distributed', 'numba', 'cv2', 'zarr', 'skimage'}\n"
        "print(heavy & set(sys.modules), file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stderr.strip() == "set()"
    assert "apexflow demo" in found.stdout


@pytest.mark.parametrize("name", sorted(_COMMANDS))
def test_every_command_explains_itself(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: cli {name}")
    assert len(result.output.splitlines()) > 5


def test_each_data_set_says_how_it_lies_on_disk() -> None:
    assert "ROOT/006/006_1_2/006_05562.jpg" in run("process", "samm", "--help").output


def test_process_info_verify_export(
    samm_root: Path, tmp_path: Path, recipe_file: Callable[[], Path]
) -> None:
    store = tmp_path / "samm.zarr"
    options = ["-o", store, "--recipe", recipe_file(), "--workers", "0"]
    processed = command("process", "samm", samm_root, *options)
    assert processed.returncode == 1
    assert "failed   2 clips" in processed.stdout
    assert "samm/032/032_3_1: apex 1930 lies before onset 4896" in processed.stdout
    info = run("info", store, "--timings")
    assert "7: 5 done, 2 failed, 0 to do; 45 frames" in info.output
    assert re.search(r"flow +\d+\.\d+ s", info.output)
    assert run("verify", store).output.endswith("is sound\n")
    assert "5 maps" in run("export", store, "--maps", tmp_path / "maps").output
    assert "45 frames" in run("export", store, "--normalized", tmp_path / "tree").output
    assert "5 animations" in run("export", store, "--gif", tmp_path / "gif").output
    for chunk in (store / "maps" / "hsv").glob("c.*"):
        chunk.unlink()
    damaged = run("verify", store)
    assert damaged.exit_code == 1
    assert "maps/hsv of clip" in damaged.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"root": "nowhere"}, "nowhere: no such folder"),
        ({"root": "empty"}, "the folder is empty"),
        ({"--annotations": "nowhere.csv"}, "nowhere.csv: cannot be read"),
        ({"--annotations": "columns.csv"}, "no column 'Onset Frame'"),
        ({"--annotations": "separator.csv"}, "no column"),
        ({"--annotations": "words.csv"}, "row 2: onset must be a whole frame number, got 'one'"),
        ({"-o": "file"}, "is not an apexflow store; choose another output"),
        ({"-o": "folder"}, "is not an apexflow store; choose another output"),
        ({"--recipe": "nowhere"}, "no such recipe or file; recipes: "),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(
    samm_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis").touch()
    (tmp_path / "file").write_text("thesis")
    table = (samm_root / "samm.csv").read_text()
    Path("columns.csv").write_text(table.replace("Onset Frame", "Start"))
    Path("separator.csv").write_text(table.replace(";", "~"))
    Path("words.csv").write_text(re.sub(r";\d+;(\d+;\d+;\d+;Micro)", r";one;\1", table))
    given = {"root": str(samm_root), "-o": "samm.zarr", "--recipe": "default"} | change
    root = given.pop("root")
    before = sorted(tmp_path.rglob("*"))
    options = [part for pair in given.items() for part in pair]
    result = command("process", "samm", root, *options)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stderr.startswith("apexflow: error: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_closed_pipe_is_no_error(samm_root: Path) -> None:
    line = f"{sys.executable} -m apexflow process samm --help | head -1; exit ${{PIPESTATUS[0]}}"
    found = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert found.stderr == ""


def test_errors_are_the_projects_own() -> None:
    result = run("info", "nowhere.zarr")
    assert isinstance(result.exception, ApexflowError)


class Newer(click.UsageError):
    """As click 8.4 and later raise it: the message alone, and what is like it when it is shown."""

    def format_message(self) -> str:
        return f"{self.message} Did you mean one of many?"


@pytest.mark.parametrize("kind", ["installed", click.UsageError, Newer])
@pytest.mark.parametrize(
    ("before", "wrong", "meant"),
    [
        ([], "proces", "process"),
        (["process"], "sam", "samm"),
        (["audit"], "casm", "casme"),
        (["recipe"], "sho", "show"),
    ],
)
def test_a_misspelt_command_is_answered_once_whatever_the_version_of_click(
    before: list[str], wrong: str, meant: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(self: click.Group, ctx: click.Context, args: list[str]) -> Any:
        if found := self.get_command(ctx, args[0]):
            return args[0], found, args[1:]
        raise kind(f"No such command {args[0]!r}.", ctx)

    if kind != "installed":
        monkeypatch.setattr(click.Group, "resolve_command", resolve)
    result = CliRunner().invoke(cli, [*before, wrong, "x"])
    assert result.exit_code == 2
    (said,) = [line for line in result.output.splitlines() if "mean" in line]
    assert said == f"Error: No such command {wrong!r}. Did you mean {meant}?"
