"""``apexflow bench``: the kernels' speed and accuracy on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--smoke", is_flag=True, help="Tiny sizes, one round: does it run at all?")
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=9,
    show_default=True,
    help="Timings of each function; medians are printed.",
)
@click.option(
    "--middlebury",
    multiple=True,
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A pair with true flow: frame10.png, frame11.png, flow10.flo. May be repeated.",
)
def bench(as_json: bool, smoke: bool, rounds: int, middlebury: tuple[Path, ...]) -> None:
    """Measure the CPU kernels against OpenCV, scikit-image and known flow.

    Both sides run in turn in one process on one pinned core, so that the ratios hold whatever
    the machine; leave it otherwise idle.
    """
    from apexflow import bench as benchmarks

    results = benchmarks.run(
        smoke=smoke,
        rounds=rounds,
        middlebury=[str(folder) for folder in middlebury],
        progress=lambda text: click.echo(text, err=True),
    )
    click.echo(json.dumps(results, indent=2) if as_json else benchmarks.as_text(results))
