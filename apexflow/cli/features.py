"""``apexflow features``: handcrafted features of a store's clips."""

from __future__ import annotations

import sys
from typing import Any

import click

from apexflow.cli import EXIT_SOME_FAILED, completion

_HELP = """\
Compute handcrafted features of every finished clip of STORE.

\b
lbp-top    local binary patterns on three planes, of aligned frames
           --blocks --radii --neighbours --frames
hog-top    histograms of gradients on three planes, of aligned frames
           --blocks --bins --frames
bi-woof    directions of flow, weighed by motion and by strain
           --blocks --bins --window
hoof       directions of flow, weighed by motion alone
           --blocks --bins --symmetric/--circle --window
mdmo       main direction of flow in each half of the face's regions
           --regions --bins --window

OUTPUT is a store of features, to be trained on as any other, or a file .npz for other programs.
From a store to the table that papers print:

\b
  apexflow features samm.zarr --method lbp-top -o lbp.zarr
  apexflow train lbp.zarr --model svm --protocol samm5 -o lbp-svm
  apexflow compare lbp-svm another-run

Running the same command again goes on where the last run ended: it does what is missing, what has
changed in STORE and what had failed. The bytes are the same whatever the number of workers.
"""


def _listed(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return tuple(value.split(",")) if value else None


class _Numbers(click.ParamType[int | tuple[int, ...]]):
    """Whole numbers, one or several: 8; 1,1,4; 5x5."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | tuple[int, ...]:
        texts = str(value).replace("x", ",").split(",")
        if not all(text.strip().isdecimal() for text in texts):
            self.fail(f"write whole numbers, as 8, 5x5 or 1,1,4. Got {value!r}.", param, ctx)
        numbers = tuple(map(int, texts))
        return numbers if len(numbers) > 1 else numbers[0]


@click.command(help=_HELP, short_help="Compute handcrafted features of a store.")
@click.argument("store", metavar="STORE")
@click.option(
    "--method",
    metavar="NAME",
    required=True,
    shell_complete=completion.features,
    help="See the list above.",
)
@click.option("-o", "--output", metavar="OUTPUT", required=True, help="A store, or a file .npz.")
@click.option("--blocks", type=_Numbers(), metavar="N|RxC", help="Rows and columns of blocks; 5x5.")
@click.option(
    "--radii", type=_Numbers(), metavar="X,Y,T", help="Of lbp-top, in pixels and frames; 1,1,4."
)
@click.option(
    "--neighbours", type=_Numbers(), metavar="N|XY,XT,YT", help="Of lbp-top on each plane; 8."
)
@click.option(
    "--bins", type=click.IntRange(min=2), metavar="N", help="Of all methods but lbp-top; 8."
)
@click.option(
    "--symmetric/--circle",
    default=None,
    help="Of hoof: left and right are the same, by default; or the whole circle.",
)
@click.option(
    "--regions", metavar="NAME,…", callback=_listed, help="Of mdmo; by default all seven."
)
@click.option(
    "--window", metavar="NAME", help="What methods of flow read; the store's first window."
)
@click.option(
    "--frames",
    type=click.Choice(["interval", "all"]),
    help="What methods of frames read of a clip: onset to offset, by default, or all.",
)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Clips at a time.")
@click.option("--quiet", is_flag=True, help="No progress, only the summary.")
def features(
    store: str,
    method: str,
    output: str,
    frames: str | None,
    window: str | None,
    workers: int | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Compute features, and say what became of each clip that has none."""
    from apexflow.features.run import extract

    summary = extract(
        store,
        output,
        method=method,
        frames=frames,
        window=window,
        workers=workers,
        progress=not quiet,
        **{name: value for name, value in options.items() if value is not None},
    )
    click.echo(summary)
    if summary.failed:
        sys.exit(EXIT_SOME_FAILED)
