"""``apexflow recipe``: what recipes there are, and what they say."""

from __future__ import annotations

import click

from apexflow.cli import Group


@click.group(cls=Group)
def recipe() -> None:
    """List recipes and print them, as a start for your own."""


@recipe.command("list")
def list_recipes() -> None:
    """Name the recipes that ship with apexflow."""
    from apexflow.engine.recipe import recipe_names, recipe_text

    for name in recipe_names():
        # The first line of each file is a comment that says what it is for.
        title = recipe_text(name).splitlines()[0].lstrip("# ")
        click.echo(f"{name:18s} {title}")


@recipe.command()
@click.argument("name", metavar="NAME|FILE")
@click.option("--full", is_flag=True, help="Every value, those of its base too, as JSON.")
def show(name: str, full: bool) -> None:
    """Print a recipe as TOML, after checking it.

    `apexflow recipe show default > mine.toml` starts a recipe of your own; one that begins with
    `base = "default"` needs to say only what differs.
    """
    import json

    from apexflow.engine.recipe import Recipe, recipe_text

    checked = Recipe.load(name)
    click.echo(json.dumps(checked.to_dict(), indent=2) if full else recipe_text(name).rstrip())
