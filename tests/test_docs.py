"""README and docs: every command and every snippet of them has run, every link leads somewhere."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import apexflow as af
from apexflow.cli import cli
from apexflow.datasets.corrections import load_corrections
from tests.docs_data import write_data, write_stores
from tests.docs_pages import PAGES, ROOT, Piece, pieces

BEFORE = {  # what a page takes from another one
    "features.md": ("samm.zarr",),
    "howto.md": ("samm.zarr", "marks.csv"),
    "magnification.md": ("samm.zarr",),
    "quality.md": ("samm.zarr",),
    "results.md": ("samm.zarr", "ststnet.zarr", "results", "new.zarr"),
    "running.md": ("samm.zarr",),
    "store.md": ("samm.zarr",),
    "training.md": ("casme2.zarr", "smic.zarr", "roi.zarr", "seq.zarr"),
    "tutorial.md": ("marks.csv",),
}
SOME_FAIL = re.compile(r"tutorial/SAMM|^apexflow (audit|spot-score)")
"""Commands that may end with 1: the tutorial's data set has two faulty clips."""
Otherwise = dict[str, dict[str, int]]
ONE_PROCESS: Otherwise = {"process": {"workers": 0}}
ONE_EPOCH: Otherwise = {"train": {"epochs": 1, "jobs": 1}}
"""What the tests do otherwise than the page says."""
TOO_LONG = (  # these by themselves, or by other tests on less
    "apexflow demo tutorial",
    "apexflow process casme2 CASME2 -o b.zarr --recipe roi",
    "apexflow train b.zarr --model roi-hybrid --protocol casme2_4 -o b",
    "apexflow process casme2 CASME2 -o c.zarr --recipe apexnet",
    "apexflow train c.zarr --model siamese-resnet --protocol casme2_4 -o c",
    "apexflow process samm SAMM -o d.zarr --recipe sequence",
    "apexflow train seq.zarr --model cnn-bilstm-pooled --labels apex -o results/apex",
    "apexflow train d.zarr --model cnn-bilstm -o d",
    "apexflow train samm.zarr --model ststnet --maps hsv --protocol samm5 -o results/moved "
    "--jitter-test 2",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("docs")
    write_data(place)
    write_stores(place)
    return place


def folder_of(page: Path, data: Path, place: Path) -> Path:
    """Return a folder with the data, and with what the page takes from other pages."""
    made = {name for names in BEFORE.values() for name in names}
    for source in data.iterdir():
        if source.name not in made or source.name in BEFORE.get(page.name, ()):
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, place / source.name)
    return place


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_can_be_walked_from_top_to_bottom(
    page: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command and snippet, one after the other, in one folder."""
    todo = [piece for piece in pieces(page) if runs(piece) and piece.text not in TOO_LONG]
    walk(page, todo, data, tmp_path, monkeypatch, ONE_PROCESS | ONE_EPOCH)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_can_be_walked_with_workers(
    page: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with processes, as the page says, and with what takes long."""
    walk(page, [*filter(runs, pieces(page))], data, tmp_path, monkeypatch, ONE_EPOCH)


def walk(
    page: Path,
    todo: Sequence[Piece],
    data: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    otherwise: Otherwise,
) -> None:
    if not todo:
        return
    monkeypatch.chdir(folder_of(page, data, place))
    names = given()
    for piece in todo:
        try:
            run(piece, names, otherwise)
        except (Exception, SystemExit) as error:
            where = f"{page.name}:{piece.line}: {piece.text.splitlines()[0]}"
            raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error


def runs(piece: Piece) -> bool:
    if piece.kind == "mention":
        return not piece.reason and is_whole(piece.words)
    return not piece.reason and piece.kind in ("command", "python")


def run(piece: Piece, names: dict[str, Any], otherwise: Otherwise) -> None:
    if piece.kind == "python":
        tree = ast.fix_missing_locations(Changed(otherwise).visit(ast.parse(piece.text)))
        exec(compile(tree, f"line {piece.line}", "exec"), names)
        return
    words, target = piece.words, os.devnull
    if ">" in words:
        words, target = words[: words.index(">")], words[words.index(">") + 1]
    with Path(target).open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        status = run_command(words, otherwise)
    assert status == 0 or (status == 1 and SOME_FAIL.search(piece.text)), status


def run_command(words: list[str], otherwise: Otherwise) -> int:
    """Run one command of ours in this process, and return its exit status."""
    assert words[0] == "apexflow", "a block of bash holds apexflow's commands, or bears a mark"
    arguments = words[1:]
    for option, value in otherwise.get(arguments[0], {}).items():
        if option == "epochs" and {"svm", "logistic"} & set(arguments):
            continue  # they have none
        if f"--{option}" in arguments:
            at = arguments.index(f"--{option}")
            del arguments[at : at + 2]
        if "--help" not in arguments:
            arguments += [f"--{option}", str(value)]
    try:
        cli.main(arguments, standalone_mode=False)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


class Changed(ast.NodeTransformer):
    """Gives calls of `af.process` and `af.train` other arguments."""

    def __init__(self, otherwise: Otherwise) -> None:
        self.otherwise = otherwise

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        other = self.otherwise.get(chain(node.func), {})
        node.keywords = [keyword for keyword in node.keywords if keyword.arg not in other]
        node.keywords += [ast.keyword(name, ast.Constant(value)) for name, value in other.items()]
        return node


def given() -> dict[str, Any]:
    """Return what snippets take for granted: a reader's own frames, maps and labels."""
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (64, 64), np.uint8)
    people = np.repeat(["a", "b", "c", "d"], 3)
    return {
        "af": af,
        "onset": frame,
        "apex": np.roll(frame, 1, axis=1),
        "region": frame,
        "template": frame[20:40, 20:40],
        "values": rng.integers(0, 256, (12, 28, 28, 3), np.uint8),
        "labels": np.tile([0, 1, 2], 4),
        "subjects": people,
        "datasets": ["mine"] * 12,
    }


def parse(words: list[str]) -> None:
    """Parse a command without running it; raises click's errors."""
    command: click.Command = cli
    arguments = words[1:]
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        found = command.get_command(click.Context(command), arguments[0])
        if found is None:
            raise click.UsageError(f"no command {arguments[0]}")
        command, arguments = found, arguments[1:]
    try:
        command.make_context(" ".join(words), arguments).close()
    except click.exceptions.Exit:  # --help
        pass
    except click.BadParameter as error:  # a folder that is not here is no fault of the page
        if isinstance(error, click.MissingParameter) or "does not exist" not in error.message:
            raise


def is_whole(words: list[str]) -> bool:
    """Say whether a command between backquotes can be run, or only names what there is."""
    try:
        parse(words)
    except click.UsageError:
        return False
    return len(words) > 2 and "FILE" not in words


def test_every_mention_names_what_there_is() -> None:
    for page in PAGES:
        for piece in pieces(page):
            if piece.kind not in ("command", "mention") or piece.words[0] != "apexflow":
                continue
            try:
                parse(piece.words[: piece.words.index(">")] if ">" in piece.words else piece.words)
            except (click.MissingParameter, click.exceptions.NoArgsIsHelpError):
                assert piece.kind == "mention", f"{page.name}:{piece.line}: {piece.text}"
            except click.UsageError as error:
                raise AssertionError(
                    f"{page.name}:{piece.line}: {piece.text}: {error.format_message()}"
                ) from None


def chain(node: ast.expr) -> str:
    """Return the name of an attribute of `af`, empty for anything else."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return ".".join(reversed(names)) if isinstance(node, ast.Name) and node.id == "af" else ""


def resolve(name: str) -> Any:
    found: Any = af
    for part in name.split("."):
        found = getattr(found, part)
    return found


def test_snippets_that_cannot_run_name_what_there_is() -> None:
    for page in PAGES:
        for piece in pieces(page):
            if piece.kind != "python" or not piece.reason:
                continue
            for node in ast.walk(ast.parse(piece.text)):
                if isinstance(node, ast.Attribute) and (name := chain(node)):
                    resolve(name)


def test_files_that_are_shown_are_what_they_claim(tmp_path: Path) -> None:
    for page in PAGES:
        for piece in pieces(page):
            if piece.kind == "toml" and not piece.reason:
                check_toml(tomllib.loads(piece.text), tmp_path / "shown.toml", piece.text)
            if piece.kind == "yaml":
                yaml = pytest.importorskip("yaml")
                assert all("kind" in part for part in yaml.safe_load_all(piece.text))


def check_toml(values: dict[str, Any], path: Path, text: str) -> None:
    """Read a file as what its keys say that it is; raises what that raises."""
    path.write_text(text, encoding="utf-8")
    if "correction" in values:
        load_corrections(path)
    elif "classes" in values:
        af.protocols.find(str(path))
    elif "model" in values:
        af.training.TrainConfig.from_toml(path)
    else:
        af.Recipe.load(path)


def test_what_is_wrong_on_a_page_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`apexflow info S --timing-s` and <!-- not run: no store -->\n\n"
        "```bash\napexflow proces samm S   # a comment\n```\n\n"
        "<!-- not run: no GPU -->\n```bash\napexflow \\\n    info S\n```\n"
        "```python\naf.trai(1)\n```\n"
    )
    mention, command, unrun, snippet = pieces(page)
    assert (mention.reason, unrun.reason) == ("no store", "no GPU")
    assert (command.line, unrun.words) == (4, ["apexflow", "info", "S"])
    for piece in (mention, command):
        with pytest.raises(click.UsageError):
            parse(piece.words)
    with pytest.raises(AttributeError, match="trai"):
        run(snippet, {"af": af}, ONE_EPOCH)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_escapes(page: Path) -> None:
    """Each command that runs is in a block of bash, which is how the tests know it."""
    fenced = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fenced ^= line.strip().startswith("```")
        assert not re.match(r" {4}(apexflow|python|pip) ", line) or fenced, f"{page.name}:{number}"
    for piece in pieces(page):
        if piece.kind == "text":
            assert not re.search(r"^(apexflow|python|pip|make) ", piece.text, re.MULTILINE), (
                f"{page.name}:{piece.line}"
            )


def test_what_takes_long_is_on_a_page() -> None:
    said = {piece.text for page in PAGES for piece in pieces(page)}
    assert said >= set(TOO_LONG)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    if not all(map(importlib.util.find_spec, ("mkdocs", "material", "mkdocstrings"))):
        pytest.skip("pip install 'apexflow[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    reference = (tmp_path / "site" / "reference.html").read_text(encoding="utf-8")
    assert "read_samm" in reference
    pages = (page.read_text(encoding="utf-8") for page in (tmp_path / "site").glob("*.html"))
    assert not any(re.search(r'<(script|link)[^>]+(src|href)="https?://', p) for p in pages)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_completes_values(shell: str) -> None:
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    completion = kind(cli, {}, "apexflow", "_APEXFLOW_COMPLETE")

    def values(arguments: list[str], begun: str) -> set[str]:
        return {item.value for item in completion.get_completions(arguments, begun)}

    assert values(["process"], "sa") == {"samm"}
    assert values(["process", "samm", "--recipe"], "sts") == {"ststnet", "ststnet-published"}
    assert "ststnet" in values(["train", "--model"], "st")
    assert values(["train", "--protocol"], "meg") == {"megc2019"}
    assert "--exclude" in values(["process", "samm"], "--ex")
    assert completion.get_completions(["process", "samm", "--recipe"], "mine.")[0].type == "file"
