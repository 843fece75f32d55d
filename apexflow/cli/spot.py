"""``apexflow spot``: from long videos to a table of their expressions."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from apexflow.cli import EXIT_SOME_FAILED

_HELP = """\
Find the expressions of long videos and write them to a table.

SOURCE is a video, a folder of numbered frames, a folder of either, or a store whose recipe keeps
all frames. The face is found once and followed; what its brows and mouth do beyond the head's
own motion becomes a curve for micro- and one for macro-expressions, whose peaks are the spots.

\b
  apexflow spot interview.mp4 -o spots.csv --report spots.html
  apexflow spot SAMM_longvideos --dataset samm-long -o spots.csv
  apexflow spot-score spots.csv SAMMLV_gt.xlsx
  apexflow process table . --annotations spots.csv -o spots.zarr

Running the same command again goes on where the last run ended, also within a video. What was
measured is kept: another --p, or another recipe with the same --parts, takes seconds.
"""


@click.command(help=_HELP, short_help="Find the expressions of long videos.")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path())
@click.option("-o", "--output", metavar="FILE", required=True, help="The table to write, a CSV.")
@click.option(
    "--recipe",
    metavar="NAME|FILE",
    default="regions",
    show_default=True,
    help="regions, mdmd, or a TOML file.",
)
@click.option(
    "--fps", type=float, metavar="RATE", help="Frames a second; without, what the video says."
)
@click.option(
    "--p",
    type=float,
    metavar="PART",
    help="A peak counts above mean + p (max - mean) of its curve; the recipe's without.",
)
@click.option(
    "--dataset",
    type=click.Choice(["samm-long", "casme_sq-long"]),
    help="SOURCE is the root of this data set: take its videos, names and rate.",
)
@click.option(
    "--annotations",
    metavar="FILE",
    type=click.Path(),
    help="The data set's table; without, it is looked for in SOURCE or beside it.",
)
@click.option(
    "--report",
    metavar="FILE",
    help="Also write a page: curves, thresholds, each spot to be played and corrected.",
)
@click.option(
    "--parts",
    metavar="DIR",
    type=click.Path(),
    help="Keep what was measured here, 7 MB a minute of video; OUTPUT.parts without.",
)
@click.option("--quiet", is_flag=True, help="No progress, only the summary.")
def spot(
    sources: tuple[str, ...],
    output: str,
    recipe: str,
    fps: float | None,
    p: float | None,
    dataset: str | None,
    annotations: str | None,
    report: str | None,
    parts: str | None,
    quiet: bool,
) -> None:
    """Spot, and say what to do next."""
    from apexflow.spotter import spot as run

    summary = run(
        sources,
        output,
        recipe=recipe,
        fps=fps,
        p=p,
        dataset=dataset,
        annotations=annotations,
        report=report,
        parts=parts,
        progress=not quiet,
    )
    click.echo(summary)
    if report:
        click.echo(f"report in {report}")
    if summary.can_be_processed:
        store = Path(output).with_suffix(".zarr")
        command = ["apexflow", "process", "table", str(summary.root)]
        command += ["--annotations", output, "-o", str(store)]
        click.echo(f"next: {shlex.join(command)}")
    if summary.failed:
        sys.exit(EXIT_SOME_FAILED)
