"""``apexflow table``: a table of clips to fill in."""

from __future__ import annotations

import sys

import click


@click.command()
@click.argument("videos", metavar="VIDEO|FOLDER...", nargs=-1, required=True)
@click.option(
    "-o", "--output", metavar="FILE", default="clips.csv", show_default=True, help="The table."
)
@click.option("--force", is_flag=True, help="Write over a table that is there.")
def table(videos: tuple[str, ...], output: str, force: bool) -> None:
    """Write a table of videos or folders of frames, to be filled in.

    One row a clip, with its number of frames and rate. A folder that holds videos or folders of
    frames gives a row for each of them. Fill in subject (who it is) and label; onset, apex and
    offset may stay empty: then the clip counts as a whole. `apexflow process table FOLDER
    --annotations FILE` reads it.
    """
    from apexflow.datasets.blank_table import write_table

    rows, left_out = write_table(videos, output, overwrite=force)
    for reason in left_out:
        click.echo(f"left out  {reason}", err=True)
    click.echo(f"{rows} clip{'s' * (rows != 1)} in {output}")
    if left_out:
        sys.exit(1)
