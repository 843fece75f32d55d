"""README and docs: every command and every name in them is one that there is."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import apexflow as af
from apexflow.cli import cli

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield (language, text) of each block of code."""
    yield from _BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(page: Path) -> Iterator[str]:
    """Yield each apexflow command of a page, in blocks and between backquotes."""
    lines = [
        line.removeprefix("machine1$ ").strip()
        for language, text in blocks(page)
        if language in ("", "bash")
        for line in text.replace("\\\n", " ").splitlines()
    ]
    lines += re.findall(r"`(apexflow [^`\n]+)`", page.read_text(encoding="utf-8"))
    for line in lines:
        command = line.partition("  #")[0].removesuffix("&").strip()
        # Forms, not commands: NAME and … stand for what a reader puts in.
        if command.startswith("apexflow ") and not re.search(r"…|\bNAME\b|\||\[", command):
            yield command


def parse(arguments: list[str]) -> None:
    """Parse a command as the command line does, without running it; raises click's errors."""
    command: click.Command = cli
    context = click.Context(cli, info_name="apexflow")
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        found = command.get_command(context, arguments[0])
        if found is None:
            raise click.UsageError(f"no command {arguments[0]}")
        context, command = click.Context(found, parent=context), found
        arguments = arguments[1:]
    command.make_parser(context).parse_args(args=arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one_that_there_is(page: Path) -> None:
    for command in commands(page):
        try:
            parse(shlex.split(command)[1:])
        except click.ClickException as error:
            raise AssertionError(f"{page.name}: {command}: {error.format_message()}") from None


def test_a_wrong_command_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`apexflow info S --timing-s` and\n```\napexflow proces samm S\n```\n")
    assert len(list(commands(page))) == 2
    for command in commands(page):
        with pytest.raises(click.UsageError):
            parse(shlex.split(command)[1:])


def chain(node: ast.expr) -> str:
    """Return what `af.a.b` is called, empty for anything else."""
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_snippet_names_what_there_is(page: Path) -> None:
    for language, text in blocks(page):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(text.replace("…", "..."))):
            if isinstance(node, ast.Attribute) and (name := chain(node)):
                resolve(name)
            if isinstance(node, ast.Call) and (name := chain(node.func)):
                takes = inspect.signature(resolve(name)).parameters
                if not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
                    given = {keyword.arg for keyword in node.keywords}
                    assert given - {None} <= takes.keys(), f"{page.name}: {name}"


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
