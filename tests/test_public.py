"""Public names: each is in the reference, and its docstring says all that `help()` should."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apexflow as af
from apexflow import _NAMES
from apexflow.errors import ApexflowError

ROOT = Path(__file__).parent.parent
ROOMS = ("bench", "datasets", "features", "kernels", "protocols", "spotting", "training")
CLASSES = ("Catalog", "Clip", "Recipe", "RunSummary")


def names_of(room: str) -> list[str]:
    """Return what a room offers; `af.protocols` is one file of rules."""
    module = getattr(af, room)
    if room == "protocols":
        return ["find", "megc2019", "samm5", "casme2_5", "casme2_4"]
    return list(module._NAMES if room == "kernels" else module.__all__)


def public() -> Iterator[tuple[str, Any]]:
    yield from ((name, getattr(af, name)) for name in _NAMES)
    for room in ROOMS:
        module = getattr(af, room)
        yield from ((f"{room}.{name}", getattr(module, name)) for name in names_of(room))


def functions() -> dict[str, Callable[..., Any]]:
    found = {name: value for name, value in public() if inspect.isfunction(value)}
    for name in CLASSES:
        for method, value in vars(getattr(af, name)).items():
            plain = getattr(value, "__func__", value)
            if inspect.isfunction(plain) and not method.startswith("_"):
                found[f"{name}.{method}"] = plain
    return found


def missing(function: Callable[..., Any]) -> list[str]:
    """Return what a docstring lacks: a section, or a parameter in it."""
    text = inspect.getdoc(function) or ""
    sections = re.split(r"^(\w+)\n-{3,}$", text, flags=re.MULTILINE)
    told = dict(zip(sections[1::2], sections[2::2], strict=True))
    named = {
        name.strip(" *")
        for line in re.findall(r"^\S.*", told.get("Parameters", ""), re.MULTILINE)
        for name in line.partition(" : ")[0].split(",")
    }
    signature = inspect.signature(function)
    lacks = [name for name in signature.parameters if name not in named | {"self", "cls"}]
    gives = signature.return_annotation not in (None, "None", inspect.Signature.empty)
    if gives and not told.keys() & {"Returns", "Yields"}:
        lacks.append("Returns")
    if "raise ApexflowError" in inspect.getsource(function) and "Raises" not in told:
        lacks.append("Raises")
    return lacks


def test_docstrings_say_what_goes_in_and_what_comes_out() -> None:
    lacking = {name: lacks for name, value in functions().items() if (lacks := missing(value))}
    assert lacking == {}


def test_what_a_docstring_lacks_is_found() -> None:
    def halves(number: int, *, times: int) -> int:
        """Halve a number.

        Parameters
        ----------
        number : int
        """
        if times < 0:
            raise ApexflowError("times")
        return number // 2**times

    assert missing(halves) == ["times", "Returns", "Raises"]


def test_the_reference_has_every_public_name() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    shown = [resolve(path) for path in re.findall(r"^::: (\S+)$", text, re.MULTILINE)]
    absent = [name for name, value in public() if callable(value) and value not in shown]
    assert absent == []


def resolve(path: str) -> Any:
    """Return what a dotted name means: the longest module that it begins with, then attributes."""
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            found: Any = importlib.import_module(".".join(parts[:count]))
            for part in parts[count:]:
                found = getattr(found, part)
            return found
    raise AssertionError(path)
