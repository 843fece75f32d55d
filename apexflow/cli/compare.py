"""``apexflow compare``: finished trainings side by side, with tests over people."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(short_help="Test whether trained runs differ, in one table.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "latex", "json"]),
    default="text",
    show_default=True,
    help="How the table is written.",
)
@click.option("-o", "--output", metavar="FILE", help="Write the table here, not on the screen.")
def compare(runs: tuple[str, ...], form: str, output: str | None) -> None:
    """Compare finished trainings of the same clips, each with the first.

    A RUN is the output folder of `apexflow train`, of one seed or of several. Each score has its
    95 % interval over people beside it. The difference in UF1 is tested by a paired permutation
    over people; McNemar's test over clips stands beside it. Runs whose clips, classes or labels
    differ are refused, since their scores are of different things.
    """
    from apexflow.errors import ApexflowError
    from apexflow.training.compare import compare as run

    found = run(runs)
    if form == "json":
        text = json.dumps(found.to_dict(), indent=2, ensure_ascii=False)
    else:
        text = {"text": found.table, "markdown": found.to_markdown, "latex": found.to_latex}[form]()
    if output is None:
        click.echo(text)
        return
    try:
        Path(output).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ApexflowError(f"cannot write {output}: {error.strerror}") from None
