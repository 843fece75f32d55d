"""Values that the shell completes: names of recipes, models, methods and protocols."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem


def recipes(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the name of a recipe, or a file."""
    from apexflow.engine.recipe import recipe_names

    return _names_or_file(recipe_names(), begun)


def models(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the name of a model."""
    from apexflow.training.config import PRESETS

    return _names(PRESETS, begun)


def features(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the name of a method of features."""
    from apexflow.features.methods import METHODS

    return _names(METHODS, begun)


def protocols(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the name of a protocol, or a file."""
    from apexflow.protocols import PROTOCOLS

    return _names_or_file(PROTOCOLS, begun)


def _names(names: Iterable[str], begun: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(begun)]


def _names_or_file(names: Iterable[str], begun: str) -> list[CompletionItem]:
    """Return the names that fit; where none does, let the shell complete files."""
    return _names(names, begun) or [CompletionItem(begun, type="file")]
