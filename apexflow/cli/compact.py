"""``apexflow compact``: few large chunks in the place of many small ones."""

from __future__ import annotations

import click


@click.command()
@click.argument("store", metavar="STORE")
@click.option(
    "--chunk-mb",
    type=click.FloatRange(min=0, min_open=True),
    default=4,
    show_default=True,
    metavar="MB",
    help="Size of a chunk before compression.",
)
@click.option(
    "--shard-mb",
    type=click.FloatRange(min=0),
    default=0,
    metavar="MB",
    help="Put chunks together into files of this size; 0 makes a file a chunk.",
)
def compact(store: str, chunk_mb: float, shard_mb: float) -> None:
    """Rewrite a finished store's many small files into few large ones, for training.

    Its content stays as it is, for readers too that have it open. `apexflow process` may go on
    with it: it brings the small files back first.
    """
    from apexflow.storage.compact import compact as run

    megabyte = 1 << 20
    done = run(
        store,
        chunk_bytes=max(1, round(chunk_mb * megabyte)),
        shard_bytes=round(shard_mb * megabyte),
    )
    click.echo(done)
