"""``apexflow demo``: everything once, on a data set made on the spot."""

from __future__ import annotations

import sys

import click

from apexflow.cli import EXIT_SOME_FAILED


@click.command()
@click.argument("folder", metavar="[FOLDER]", default="apexflow-demo")
@click.option("--workers", type=click.IntRange(min=0), metavar="N", help="Clips at a time.")
@click.option(
    "--picture",
    "pictures",
    multiple=True,
    metavar="FILE",
    help="A picture of a face to make clips of; again for more. A portrait is shipped.",
)
def demo(folder: str, workers: int | None, pictures: tuple[str, ...]) -> None:
    """Make a small data set, process it, check it, write a report.

    FOLDER (apexflow-demo by default) gets SAMM/ with frames like SAMM's, samm.zarr, and
    report.html with figures. Two of the clips have faulty annotations, as the real table has:
    they are reported, and the rest goes on. Needs no data, no network and no GPU.
    """
    from apexflow.demo import run_demo

    click.echo(f"making a data set in {folder}/SAMM and processing it", err=True)
    result = run_demo(folder, workers=workers, pictures=pictures)
    click.echo(result.summary)
    for check in result.checks:
        click.echo(f"check    {check}")
    click.echo(f"report   {result.report}")
    if not all(check.passed for check in result.checks):
        sys.exit(EXIT_SOME_FAILED)
