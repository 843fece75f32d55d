"""What README and docs tell a reader to run: found in their Markdown.

A block of ``bash`` holds commands, one of ``python`` a snippet, ``toml`` and ``yaml`` files; a
block without a language holds neither. A command between backquotes counts when it is whole: one
that only names an option or leaves an argument out is a mention. What cannot run where the tests
run has ``<!-- not run: REASON -->`` in the line above it, or at the end of its line.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_FENCE = re.compile(r"^( *)```(\w*)$")
_MARK = re.compile(r"<!-- not run: (.+?) -->")
_INLINE = re.compile(r"`(apexflow [^`\n]+)`")
# Forms, not commands: … and | stand for what a reader puts in or chooses.
_FORM = re.compile(r"…|\||\[|\bNAME\b")


@dataclass(frozen=True, slots=True)
class Piece:
    """One thing that a page says.

    Attributes
    ----------
    kind : {"command", "mention", "python", "toml", "yaml", "text"}
    text : str
        A command without its comment, or a whole block.
    line : int
        Where it stands, from 1.
    reason : str
        Why it is not run; empty when it is.
    """

    kind: Literal["command", "mention", "python", "toml", "yaml", "text"]
    text: str
    line: int
    reason: str = ""
    words: list[str] = field(default_factory=list)


def pieces(page: Path) -> Iterator[Piece]:
    """Yield what a page says in its order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    number, reason = 0, ""
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence is None:
            marked = _MARK.search(lines[number])
            yield from _mentions(lines[number], number + 1, marked[1] if marked else "")
            reason = marked[1] if marked else ""
            number += 1
            continue
        first = number + 1
        number = next(n for n in range(first, len(lines)) if lines[n].strip() == "```")
        inside = [line.removeprefix(fence[1]) for line in lines[first:number]]
        yield from _block(fence[2], inside, first + 1, reason)
        number, reason = number + 1, ""


def _block(language: str, lines: list[str], number: int, reason: str) -> Iterator[Piece]:
    if language == "bash":
        yield from _commands(lines, number, reason)
    elif language in ("python", "toml", "yaml"):
        yield Piece(language, "\n".join(lines) + "\n", number, reason)  # type: ignore[arg-type]
    else:
        yield Piece("text", "\n".join(lines), number)


def _commands(lines: list[str], number: int, reason: str) -> Iterator[Piece]:
    begun, first = "", number
    for line in lines:
        begun, first = begun + line, first if begun else number
        number += 1
        if begun.endswith("\\"):
            begun = begun[:-1]
            continue
        command = begun.removeprefix("machine1$ ").removesuffix("&").strip()
        begun = ""
        # A script that is not run has lines of other programs, too.
        if reason and not command.startswith("apexflow "):
            continue
        if words := shlex.split(command, comments=True):
            yield Piece("command", command, first, reason, words)


def _mentions(line: str, number: int, reason: str) -> Iterator[Piece]:
    for found in _INLINE.finditer(line):
        if not _FORM.search(found[1]):
            yield Piece("mention", found[1], number, reason, shlex.split(found[1]))
